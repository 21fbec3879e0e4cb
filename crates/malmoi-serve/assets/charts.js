// Line charts and axes.

import { h, onWidth, put, s } from './dom.js';
import { plain } from './numbers.js';

/** Round values between two ends, about `count` of them; with `whole`, no parts of one. */
export function ticks(low, high, count = 4, whole = false) {
  const raw = Math.max((high - low) / count || 1, whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, whole ? 2 : 2.5, 5, 10].map((m) => m * power).find((one) => one >= raw);
  const out = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) out.push(Number(value.toPrecision(12)));
  return out;
}

/** Powers of ten between two ends. */
export function decades(low, high) {
  const out = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power += 1) out.push(10 ** power);
  return out;
}

/**
 * A chart of curves over a common axis. A curve is `{name, color, x, y, dots}`; null values leave gaps.
 * Pointing at a place shows the values there.
 */
export function lineChart({ title, curves, format = plain, xName, height = 190, fromZero = false, label, axis = format }) {
  const readout = h('span', { class: 'number' });
  const node = h('figure', { class: 'chart' },
    h('figcaption', {}, h('b', {}, title), curves.length > 1 ? curves.map((curve) => h('span', { class: 'key', vars: { '--c': curve.color } }, curve.name)) : null, readout));
  const stage = h('div', { class: 'stage' });
  node.append(stage);
  const points = curves.flatMap((curve) => curve.x.map((x, i) => [x, curve.y[i]])).filter(([, y]) => Number.isFinite(y));
  if (!points.length) return put(stage, h('p', { class: 'hint' }, label)) && node;
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [fromZero ? 0 : Math.min(...ys), Math.max(...ys)];
  if (y0 === y1) [y0, y1] = [y0 - (Math.abs(y0) * 0.1 || 1), y1 + (Math.abs(y1) * 0.1 || 1)];
  const pad = (y1 - y0) * 0.06;
  [y0, y1] = [fromZero ? 0 : y0 - pad, y1 + pad];
  const last = curves.map((curve) => curve.y.findLast((value) => Number.isFinite(value)));
  const tell = (values, at) => put(readout, [curves.length > 1 ? values.map((value) => format(value)).join(' · ') : format(values[0]), at === null ? '' : ` @ ${at}`].join(''));
  tell(last, null);
  onWidth(stage, (width) => {
    const [left, right, top, bottom] = [46, 8, 8, 22];
    const px = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right);
    const py = (y) => top + (1 - (y - y0) / (y1 - y0)) * (height - top - bottom);
    const cross = s('line', { class: 'cross', y1: top, y2: height - bottom, visibility: 'hidden' });
    const drawing = s('svg', { width, height, role: 'img', 'aria-label': `${title}: ${last.map((value) => format(value)).join(', ')}` },
      ticks(y0, y1).map((value) => [s('line', { class: 'grid', x1: left, x2: width - right, y1: py(value), y2: py(value) }), s('text', { class: 'tick', x: left - 6, y: py(value), 'text-anchor': 'end', 'dominant-baseline': 'central' }, axis(value))]),
      ticks(x0, x1, width / 110, true).filter((value) => !xName || px(value) < width - right - 8 * xName.length - 18).map((value) => s('text', { class: 'tick', x: px(value), y: height - 6, 'text-anchor': 'middle' }, plain(value))),
      xName ? s('text', { class: 'tick', x: width - right, y: height - 6, 'text-anchor': 'end' }, xName) : null,
      curves.map((curve) => [
        s('path', { class: 'curve', stroke: curve.color, d: path(curve, px, py) }),
        curve.dots || curve.x.length === 1 ? curve.x.map((x, i) => Number.isFinite(curve.y[i]) && s('circle', { cx: px(x), cy: py(curve.y[i]), r: 3.5, fill: curve.color })) : null]),
      cross);
    drawing.addEventListener('pointermove', (event) => {
      const x = x0 + ((event.offsetX - left) / (width - left - right)) * (x1 - x0);
      const values = curves.map((curve) => curve.y[nearest(curve.x, x)]);
      const at = curves[0].x[nearest(curves[0].x, x)];
      cross.setAttribute('x1', px(at));
      cross.setAttribute('x2', px(at));
      cross.setAttribute('visibility', 'visible');
      tell(values, at);
    });
    drawing.addEventListener('pointerleave', () => {
      cross.setAttribute('visibility', 'hidden');
      tell(last, null);
    });
    put(stage, drawing);
  });
  return node;
}

function path(curve, px, py) {
  let pen = 'M';
  return curve.x.map((x, i) => {
    if (!Number.isFinite(curve.y[i])) {
      pen = 'M';
      return '';
    }
    const part = `${pen}${px(x).toFixed(1)} ${py(curve.y[i]).toFixed(1)}`;
    pen = 'L';
    return part;
  }).join('');
}

function nearest(sorted, x) {
  let best = 0;
  sorted.forEach((value, i) => {
    if (Math.abs(value - x) < Math.abs(sorted[best] - x)) best = i;
  });
  return best;
}
