#!/usr/bin/env python3
"""Open every model directory that malmoi saved with Python's transformers, and compare what the two compute.

    cargo run --release -p malmoi-models --example save_each -- /tmp/saved
    python3 golden/check_saved.py /tmp/saved

Needs torch and transformers. A tensor that is missing, unexpected or of another shape fails, as does an output that differs by more than the
tolerance. Prints a line a model and exits with 1 when one fails.
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers


def load(folder):
    names = transformers.AutoConfig.from_pretrained(folder).architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        raise ValueError(f"expected one known class in `architectures`, found {names}")
    model, report = getattr(transformers, names[0]).from_pretrained(folder, output_loading_info=True)
    faults = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if faults:
        raise ValueError(f"weights do not fit {names[0]}: {json.dumps(faults)}")
    return model.float().eval()


def deviation(folder, tolerance):
    """The largest absolute difference over all outputs, and how many outputs there are."""
    model = load(folder)
    given = json.loads((folder / "expected.json").read_text()) if (folder / "expected.json").exists() else None
    if given is None:
        return 0.0, 0
    with torch.no_grad():
        found = model(**{key: torch.tensor(value) for key, value in given["inputs"].items()})
    worst = 0.0
    for name, values in given["outputs"].items():
        values = torch.tensor(values)
        ours = found[name].flatten()
        if ours.shape != values.shape:
            raise ValueError(f"{name} has {ours.numel()} values, malmoi computed {values.numel()}")
        worst = max(worst, (ours - values).abs().max().item())
    if not worst <= tolerance:
        raise ValueError(f"outputs differ by {worst:.3g}")
    return worst, len(given["outputs"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of model directories")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference of an output (default 1e-4; outputs are of order one)")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folders = sorted(path.parent for path in args.folder.rglob("config.json"))
    failed = 0
    for folder in folders:
        name = folder.relative_to(args.folder)
        try:
            worst, outputs = deviation(folder, args.tolerance)
            print(f"ok {name}: {outputs} outputs, worst {worst:.2g}" if outputs else f"ok {name}: opens")
        except Exception as error:  # Whatever the library raises is the finding.
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}")
    print(f"{len(folders) - failed} of {len(folders)} model directories agree with transformers {transformers.__version__}")
    sys.exit(1 if failed or not folders else 0)


if __name__ == "__main__":
    main()
