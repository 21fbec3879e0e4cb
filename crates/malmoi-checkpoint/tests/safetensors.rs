//! Reading and writing safetensors, against the reference implementation of the format.

mod common;

use std::fs;

use common::{file_with, golden_models};
use half::{bf16, f16};
use malmoi_checkpoint::{
    Dtype, Error, FORMAT_PT, HeaderError, NamedTensor, Tensors, WEIGHTS, WEIGHTS_INDEX,
    to_safetensors_bytes, write_safetensors, write_weights,
};
use safetensors::SafeTensors;

#[test]
fn golden_models_read_the_same_as_by_the_reference() {
    for dir in golden_models() {
        let ours = Tensors::open(&dir).unwrap();
        let bytes = fs::read(dir.join(WEIGHTS)).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(ours.len(), reference.len());
        assert_eq!(ours.metadata("format"), Some("pt"));
        for (name, theirs) in reference.iter() {
            let view = ours.get(name).unwrap();
            assert_eq!(
                (view.shape, view.bytes),
                (theirs.shape(), theirs.data()),
                "{name}"
            );
            assert_eq!(view.dtype.name(), format!("{:?}", theirs.dtype()));
        }
    }
}

#[test]
fn every_element_type_survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.safetensors");
    let f32s: Vec<f32> = (0..20_000).map(|i| i as f32 * 0.37 - 5.0).collect();
    let tensors = [
        NamedTensor::new("bytes", &[3], vec![1u8, 2, 255]),
        NamedTensor::new("f32", &[100, 200], &f32s),
        NamedTensor::new("f64", &[2], vec![1.5f64, -2.25e300]),
        NamedTensor::new(
            "f16",
            &[2],
            vec![f16::from_f32(0.5), f16::from_f32(-65504.0)],
        ),
        NamedTensor::new(
            "bf16",
            &[1, 2],
            vec![bf16::from_f32(3.0), bf16::from_f32(-1e30)],
        ),
        NamedTensor::new("i64", &[2], vec![i64::MIN, i64::MAX]),
        NamedTensor::new("i32", &[], vec![-7i32]),
        NamedTensor::new("u32", &[2], vec![0u32, u32::MAX]),
        NamedTensor::new("i8", &[2], vec![-128i8, 127]),
        NamedTensor::new("empty", &[0, 5], Vec::<f32>::new()),
        NamedTensor::new("이름", &[1], vec![1.0f32]),
    ];
    write_safetensors(&path, &tensors, FORMAT_PT).unwrap();

    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes, to_safetensors_bytes(&tensors, FORMAT_PT).unwrap());
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let back = Tensors::open(&path).unwrap();
    assert_eq!(back.len(), tensors.len());
    for tensor in &tensors {
        let view = back.get(&tensor.name).unwrap();
        assert_eq!(
            (view.dtype, view.shape),
            (tensor.data.dtype(), tensor.shape.as_slice())
        );
        assert_eq!(reference.tensor(&tensor.name).unwrap().data(), view.bytes);
        let offset =
            view.bytes.as_ptr() as usize - back.get("i64").unwrap().bytes.as_ptr() as usize;
        assert!(
            offset.is_multiple_of(view.dtype.size()),
            "{} is aligned in the file",
            tensor.name
        );
    }
    assert_eq!(back.to_f32("f32").unwrap(), (vec![100, 200], f32s));
    assert_eq!(back.to_f32("f64").unwrap().1, [1.5, f32::NEG_INFINITY]);
    assert_eq!(back.to_f64("f64").unwrap().1, [1.5, -2.25e300]);
    assert_eq!(back.to_f32("f16").unwrap().1, [0.5, -65504.0]);
    assert_eq!(
        back.to_f32("bf16").unwrap().1,
        [3.0, bf16::from_f32(-1e30).to_f32()]
    );
    assert_eq!(back.to_i64("i64").unwrap().1, [i64::MIN, i64::MAX]);
    assert_eq!(back.to_i64("i32").unwrap(), (vec![], vec![-7]));
    assert_eq!(back.to_i64("u32").unwrap().1, [0, i64::from(u32::MAX)]);
    assert_eq!(back.to_i64("i8").unwrap().1, [-128, 127]);
    assert_eq!(back.to_bytes("bytes").unwrap(), (vec![3], vec![1, 2, 255]));
    assert_eq!(back.to_f32("empty").unwrap(), (vec![0, 5], vec![]));
}

#[test]
fn a_file_of_the_reference_is_read() {
    let data: Vec<u8> = (0..24).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::U16, vec![3, 4], &data).unwrap();
    let bytes = safetensors::serialize([("a", view)], None).unwrap();
    let ours = Tensors::from_bytes(bytes, "memory").unwrap();
    assert_eq!(ours.to_bytes("a").unwrap(), (vec![3, 4], data));
    assert_eq!(ours.to_i64("a").unwrap().1[0], 0x0100);
}

#[test]
fn conversions_that_would_lose_meaning_are_refused() {
    let bytes = to_safetensors_bytes(
        &[
            NamedTensor::new("ids", &[1], vec![5i64]),
            NamedTensor::new("w", &[1], vec![5.0f32]),
        ],
        &[],
    )
    .unwrap();
    let tensors = Tensors::from_bytes(bytes, "memory").unwrap();
    let error = tensors.to_f32("ids").unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `ids` holds I64, expected F32, F16, BF16 or F64; convert it before loading"
    );
    assert!(matches!(
        tensors.to_i64("w"),
        Err(Error::DtypeMismatch {
            found: Dtype::F32,
            ..
        })
    ));
    let error = tensors.to_f32("v").unwrap_err().to_string();
    assert_eq!(
        error,
        "tensor `v` isn't in `memory`; it has 2 tensors, the first are ids, w"
    );
}

/// Every defect of a header with the error it must give.
#[test]
fn damaged_files_are_named_by_their_defect() {
    fn problem(bytes: Vec<u8>) -> HeaderError {
        match Tensors::from_bytes(bytes, "f") {
            Err(Error::Header { problem, .. }) => problem,
            other => panic!("expected a header error, found {other:?}"),
        }
    }
    let row = |dtype: &str, shape: &str, begin: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    };
    let one = |row: String| format!(r#"{{"a":{row}}}"#);
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let good = row("F32", "[1]", 0, 4);

    assert!(matches!(
        problem(vec![1, 2, 3]),
        HeaderError::TooSmall { found: 3 }
    ));
    assert!(matches!(
        problem(vec![255; 64]),
        HeaderError::TooLong { .. }
    ));
    assert!(matches!(
        problem(file_with("{}", &[])[..9].to_vec()),
        HeaderError::TruncatedHeader {
            expected: 2,
            found: 1
        }
    ));
    let mut bytes = file_with("{}  ", &[]);
    bytes[10] = 0xff;
    assert!(matches!(problem(bytes), HeaderError::NotUtf8 { at: 2 }));
    assert!(matches!(
        problem(file_with("[]", &[])),
        HeaderError::Json { .. }
    ));
    assert!(matches!(
        problem(file_with("{", &[])),
        HeaderError::Json { .. }
    ));
    assert!(matches!(
        problem(file_with(r#"{"a":{"dtype":"F32"}}"#, &[])),
        HeaderError::Json { .. }
    ));
    assert!(matches!(
        problem(file_with(&one(row("F31", "[1]", 0, 4)), &[0; 4])),
        HeaderError::UnknownDtype { .. }
    ));
    let twice = format!(r#"{{"a":{good},"a":{}}}"#, row("F32", "[1]", 4, 8));
    assert!(matches!(
        problem(file_with(&twice, &[0; 8])),
        HeaderError::DuplicateName { .. }
    ));
    assert!(matches!(
        problem(file_with(&one(row("F32", "[3]", 0, 4)), &[0; 4])),
        HeaderError::WrongSize { found: 4, .. }
    ));
    let huge = row("F32", "[4294967296,4294967296,4]", 0, 4);
    assert!(matches!(
        problem(file_with(&one(huge), &[0; 4])),
        HeaderError::WrongSize { .. }
    ));
    assert!(matches!(
        problem(file_with(&one(row("F32", "[1]", 8, 4)), &[0; 8])),
        HeaderError::BackwardRange { .. }
    ));
    assert!(matches!(
        problem(file_with(
            &two(good.clone(), row("F32", "[1]", 2, 6)),
            &[0; 6]
        )),
        HeaderError::Overlap {
            begin: 2,
            expected: 4,
            ..
        }
    ));
    assert!(matches!(
        problem(file_with(
            &two(good.clone(), row("F32", "[1]", 6, 10)),
            &[0; 10]
        )),
        HeaderError::Hole { count: 2, .. }
    ));
    assert!(matches!(
        problem(file_with(&one(good.clone()), &[0; 3])),
        HeaderError::TruncatedData {
            expected: 4,
            found: 3,
            ..
        }
    ));
    assert!(matches!(
        problem(file_with(&one(good), &[0; 6])),
        HeaderError::TrailingBytes { count: 2 }
    ));
}

#[test]
fn a_truncated_golden_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(WEIGHTS);
    let whole = fs::read(golden_models()[0].join(WEIGHTS)).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let message = Tensors::open(&path).unwrap_err().to_string();
    assert!(
        message.contains("the file was cut short") && message.contains("bytes, expected"),
        "{message}"
    );
    fs::write(&path, b"").unwrap();
    let message = Tensors::open(&path).unwrap_err().to_string();
    assert!(
        message.contains("it has 0 bytes, expected at least 8"),
        "{message}"
    );
}

#[test]
fn shards_read_as_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let tensors: Vec<NamedTensor> = (0..5)
        .map(|i| NamedTensor::new(format!("t{i}"), &[200], &data[i * 200..(i + 1) * 200]))
        .collect();
    // 800 bytes each: two fit into 1,700 bytes.
    let files = write_weights(dir.path(), &tensors, Some(1700)).unwrap();
    assert_eq!(
        files,
        [
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
            WEIGHTS_INDEX
        ]
    );
    let back = Tensors::open(dir.path()).unwrap();
    assert_eq!(
        back.names().collect::<Vec<_>>(),
        ["t0", "t1", "t2", "t3", "t4"]
    );
    assert_eq!(back.to_f32("t3").unwrap().1, data[600..800]);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join(WEIGHTS_INDEX)).unwrap()).unwrap();
    assert_eq!(index["metadata"]["total_size"], 4000);

    // A shard that isn't there, and one that lacks a tensor.
    let second = dir.path().join("model-00002-of-00003.safetensors");
    write_safetensors(&second, &tensors[2..3], FORMAT_PT).unwrap();
    let message = Tensors::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("`t3` should be in `model-00002-of-00003.safetensors`"),
        "{message}"
    );
    write_safetensors(&second, &tensors[1..4], FORMAT_PT).unwrap();
    let message = Tensors::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("tensor `t1` lies in `model-00002-of-00003.safetensors`"),
        "{message}"
    );
    fs::remove_file(&second).unwrap();
    let message = Tensors::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("expected the shard `model-00002-of-00003.safetensors`"),
        "{message}"
    );
}

#[test]
fn an_index_can_not_lead_out_of_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    for file in [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "x.bin",
        "..",
        "",
    ] {
        let index = serde_json::json!({ "weight_map": { "w": file } });
        fs::write(dir.path().join(WEIGHTS_INDEX), index.to_string()).unwrap();
        let message = Tensors::open(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("tensor `w` is listed in"),
            "{file}: {message}"
        );
    }
}

#[test]
fn pickles_are_refused_with_the_way_to_convert_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    fs::write(&path, b"\x80\x02}q\x00.").unwrap();
    let message = Tensors::open(&path).unwrap_err().to_string();
    assert!(
        message.contains("arbitrary code") && message.contains("save_file"),
        "{message}"
    );
    let message = Tensors::open(dir.path()).unwrap_err().to_string();
    assert!(
        message.contains("only pickled weights (pytorch_model.bin)"),
        "{message}"
    );
}

#[test]
fn tensors_that_do_not_fit_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    fs::write(&path, b"before").unwrap();
    for wrong in [
        vec![NamedTensor::new("a", &[3], vec![1.0f32])],
        vec![NamedTensor::new("a", &[usize::MAX, 2], vec![1.0f32])],
        vec![
            NamedTensor::new("a", &[1], vec![1.0f32]),
            NamedTensor::new("a", &[1], vec![1.0f32]),
        ],
        vec![NamedTensor::new("__metadata__", &[1], vec![1.0f32])],
    ] {
        assert!(matches!(
            write_safetensors(&path, &wrong, &[]),
            Err(Error::BadTensor { .. })
        ));
    }
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn a_mapped_file_can_be_replaced_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    write_safetensors(
        &path,
        &[NamedTensor::new("a", &[2], vec![1.0f32, 2.0])],
        &[],
    )
    .unwrap();
    let old = Tensors::open(&path).unwrap();
    write_safetensors(&path, &[NamedTensor::new("a", &[1], vec![9.0f32])], &[]).unwrap();
    assert_eq!(old.to_f32("a").unwrap().1, [1.0, 2.0]);
    assert_eq!(Tensors::open(&path).unwrap().to_f32("a").unwrap().1, [9.0]);
}

#[test]
fn shared_elements_outlive_the_checkpoint_and_are_refused_where_they_are_not_aligned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let tensors = [
        NamedTensor::new("a", &[2], vec![1.0f32, -2.5]),
        NamedTensor::new("half", &[1], vec![bf16::from_f32(3.0)]),
    ];
    write_safetensors(&path, &tensors, &[]).unwrap();
    let shared = {
        let file = Tensors::open(&path).unwrap();
        assert_eq!(file.shared_f32("half"), None);
        assert_eq!(file.shared_f32("no such"), None);
        file.shared_f32("a").expect("aligned")
    };
    let expected: Vec<u8> = [1.0f32, -2.5]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert_eq!(shared[..], expected[..]);

    // A byte before the elements moves them off every boundary of four.
    let header = r#"{"skip":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}}"#;
    let odd = format!("{header:<width$}", width = header.len().next_multiple_of(8));
    fs::write(&path, file_with(&odd, &[7, 0, 0, 128, 63])).unwrap();
    let file = Tensors::open(&path).unwrap();
    assert_eq!(file.shared_f32("a"), None);
    assert_eq!(file.to_f32("a").unwrap().1, [1.0]);
}

#[test]
fn pages_that_were_given_back_are_read_from_the_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    // Some pages, and neighbours on the same ones.
    let values: Vec<f32> = (0..20_000).map(|x| x as f32).collect();
    let tensors = [
        NamedTensor::new("before", &[3], vec![7.0f32; 3]),
        NamedTensor::new("a", &[20_000], values.clone()),
        NamedTensor::new("half", &[2], vec![bf16::from_f32(3.0); 2]),
    ];
    write_safetensors(&path, &tensors, &[]).unwrap();
    let file = Tensors::open(&path).unwrap();
    for _ in 0..2 {
        let (dtype, passing) = file.passing("a").expect("aligned");
        assert_eq!(dtype, Dtype::F32);
        let clone = passing.clone();
        drop(passing);
        assert_eq!(clone.len(), 80_000);
        assert_eq!(clone[..4], 0.0f32.to_le_bytes());
        assert_eq!(clone[79_996..], 19_999.0f32.to_le_bytes());
        drop(clone);
        assert_eq!(*file.as_f32("a").unwrap(), values[..]);
        assert_eq!(*file.as_f32("half").unwrap(), [3.0, 3.0]);
        file.release("half");
        file.release("no such");
    }
    assert_eq!(*file.as_f32("before").unwrap(), [7.0; 3]);
    let (dtype, half) = file.passing("half").expect("aligned");
    assert_eq!((dtype, &half[..2]), (Dtype::Bf16, &[0x40, 0x40][..]));
    assert!(file.passing("no such").is_none());
    // In memory there is nothing to give back.
    let memory = Tensors::from_bytes(fs::read(&path).unwrap(), "memory").unwrap();
    memory.release("a");
    assert_eq!(*memory.as_f32("a").unwrap(), values[..]);
}

#[test]
fn renaming_refuses_two_tensors_of_one_name() {
    let bytes = to_safetensors_bytes(
        &[
            NamedTensor::new("n.gamma", &[1], vec![1.0f32]),
            NamedTensor::new("n.weight", &[1], vec![2.0f32]),
        ],
        &[],
    )
    .unwrap();
    let open = || Tensors::from_bytes(bytes.clone(), "f").unwrap();
    let renamed = open()
        .rename(|name| name.strip_prefix("n.").map(str::to_string))
        .unwrap();
    assert_eq!(renamed.to_f32("gamma").unwrap().1, [1.0]);
    let modern = |name: &str| Some(name.replace("gamma", "weight"));
    assert!(matches!(
        open().rename(modern),
        Err(Error::BadTensor { .. })
    ));
}
