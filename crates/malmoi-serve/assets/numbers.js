// Numbers as people read them.

/** A probability: `42.0 %`, `<0.1 %`. */
export function percent(p) {
  if (p > 0 && p < 0.001) return '<0.1 %';
  return `${(100 * p).toFixed(1)} %`;
}

const UNITS = [[1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']];

/** Three digits and an SI prefix. */
export function si(value, unit = '') {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const found = UNITS.find(([size]) => Math.abs(value) >= size);
  const [scaled, prefix] = found ? [value / found[0], found[1]] : [value, ''];
  const digits = Math.abs(scaled) >= 100 || (Number.isInteger(scaled) && !prefix) ? 0 : Math.abs(scaled) >= 10 ? 1 : 2;
  return `${scaled.toFixed(digits)}${prefix || unit ? ' ' : ''}${prefix}${unit}`;
}

/** Bytes in binary units. */
export function bytes(value) {
  if (value === null || value === undefined) return '–';
  let scaled = value;
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (scaled < 1024 || unit === 'GiB') return `${scaled.toFixed(scaled >= 100 || unit === 'B' ? 0 : 1)} ${unit}`;
    scaled /= 1024;
  }
  return '';
}

/** A time. */
export function seconds(value) {
  if (value < 1e-3) return `${(value * 1e6).toFixed(1)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(2)} ms`;
  return `${value.toFixed(2)} s`;
}

/** A number on an axis or beside a curve. */
export function plain(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 1e-3) return value.toExponential(1).replace('e-', 'e−');
  if (size >= 10000) return si(value).replace(' ', '');
  return String(Number(value.toPrecision(4)));
}
