// Machine: how fast this machine can be, where each part of a model lies, and what the server does now.

import { get, served } from './api.js';
import { decades, lineChart } from './charts.js';
import { choice, field, h, onWidth, put, s } from './dom.js';
import { bytes, percent, plain, seconds, si } from './numbers.js';
import { busy, failed } from './states.js';
import { t } from './texts.js';

const state = { model: null, phase: '', batch: 1, tokens: '' };

export function render(body) {
  const facts = h('div', { class: 'facts' });
  const roofline = h('div', { class: 'inside' });
  const live = h('div', { class: 'inside', id: 'live' });
  const model = () => served.models.find((one) => one.id === state.model) || served.models[0];
  const controls = h('form', { class: 'controls', onsubmit: (event) => event.preventDefault() });
  let machine = null;
  const gone = new AbortController();

  const numeric = (name, most) => {
    const input = h('input', { type: 'number', min: 1, max: most, placeholder: t('auto'), inputmode: 'numeric' });
    input.value = state[name];
    input.addEventListener('change', () => { state[name] = input.value; chart(); });
    return input;
  };
  const phases = () => (model().direction === 'encoder' ? ['encode', 'train'] : ['prefill', 'decode', 'train']);
  const drawControls = () => put(controls,
    field(t('model'), choice(served.models.map((one) => [one.id, one.id]), model().id, (id) => { state.model = id; state.phase = ''; drawControls(); chart(); })),
    field(t('machine.phase'), choice(phases().map((one) => [one, t(`phase.${one}`)]), state.phase || phases()[0], (phase) => { state.phase = phase; chart(); })),
    field(t('machine.batch'), numeric('batch', 512)), field(t('machine.tokens'), numeric('tokens', 8192)));

  async function chart() {
    put(roofline, busy(machine ? undefined : t('machine.measuring')));
    try {
      machine ??= await get('/lab/machine', gone.signal);
      put(facts, summary(machine));
      const query = new URLSearchParams({ model: model().id, phase: state.phase || phases()[0], batch: state.batch || 1 });
      if (state.tokens) query.set('tokens', state.tokens);
      const cost = await get(`/lab/roofline?${query}`, gone.signal);
      const stage = h('div', { class: 'stage' });
      put(roofline, headline(cost), stage, table(cost), memory(cost.memory));
      onWidth(stage, (width) => put(stage, roofs(cost, machine, width)));
    } catch (error) {
      if (error.name !== 'AbortError') put(roofline, failed(error, chart));
    }
  }

  const history = { at: [], in: [], out: [] };
  async function now() {
    try {
      const seen = await get('/lab/live', gone.signal);
      const sum = (name) => seen.models.reduce((total, one) => total + one[name], 0);
      history.at.push(Math.round(seen.uptime_seconds));
      history.in.push(sum('tokens_in_per_second'));
      history.out.push(sum('tokens_out_per_second'));
      for (const list of Object.values(history)) list.splice(0, Math.max(0, list.length - 60));
      put(live, liveFacts(seen), lineChart({
        title: t('machine.tokensPerSecond'), height: 150, fromZero: true, format: (value) => si(value), axis: plain, xName: t('machine.uptime'), label: '',
        curves: [{ name: t('machine.read'), color: 'var(--bert)', x: history.at, y: history.in }, { name: t('machine.wrote'), color: 'var(--gpt)', x: history.at, y: history.out }],
      }));
    } catch (error) {
      if (error.name !== 'AbortError') put(live, failed(error, now));
    }
  }

  drawControls();
  put(body, facts,
    h('section', { class: 'card', 'aria-label': t('machine.roofline') }, h('header', { class: 'cardhead' }, h('h2', {}, t('machine.roofline')), h('p', {}, t('machine.rooflineHint'))), controls, roofline),
    h('section', { class: 'card', 'aria-label': t('machine.live') }, h('header', { class: 'cardhead' }, h('h2', {}, t('machine.live')), h('p', {}, t('machine.liveHint'))), live));
  chart();
  now();
  const timer = setInterval(() => !document.hidden && now(), 2000);
  return () => {
    clearInterval(timer);
    gone.abort();
  };
}

const fact = (name, value, hint) => h('div', { class: 'fact' }, h('span', {}, name), h('b', { class: 'number' }, value), hint ? h('small', {}, hint) : null);

/** A power of ten without digits that say nothing. */
const round = (value) => si(value).replace(/\.0+(?= |$)/, '');

/** What an operation waits for. */
const limit = (bound) => t(`bound.${bound}`, bound);

function summary(machine) {
  const memory = machine.levels.find((level) => level.capacity === null);
  return [
    fact(t('machine.processor'), machine.processor.replace(/\((R|TM)\)/g, ''), t('machine.threads', machine.threads, machine.instruction_set)),
    machine.peaks.map((peak) => fact(peak.arithmetic, si(peak.all, peak.arithmetic === 'int8' ? 'OP/s' : 'FLOP/s'), peak.unit)),
    memory ? fact(t('machine.bandwidth'), si(memory.all, 'B/s'), t('machine.memory')) : null,
    fact(t('machine.memory'), bytes(machine.memory.total), t('machine.available', bytes(machine.memory.available))),
  ];
}

const headline = (cost) => h('p', { class: 'readout' },
  t('machine.predicted'), ' ', h('b', {}, seconds(cost.predicted_s)), ` · ${si(cost.flops, 'FLOP')} · ${si(cost.bytes, 'B')} · ${t('machine.boundBy')} `, h('b', {}, limit(cost.bound)));

/** The roof: memory slopes and arithmetic ceilings, and the operations under it. */
function roofs(cost, machine, width) {
  const height = Math.max(260, Math.min(400, width * 0.5));
  const [left, right, top, bottom] = [62, 14, 18, 36];
  const ops = cost.ops.filter((op) => op.flops > 0 && op.flops_per_second > 0);
  const intensities = ops.map((op) => op.intensity);
  const peak = cost.peak_flops;
  const x0 = 10 ** Math.floor(Math.log10(Math.min(0.1, ...intensities)));
  const x1 = 10 ** Math.ceil(Math.log10(Math.max(1000, ...intensities)));
  const y1 = peak * 2.2;
  const y0 = Math.min(cost.memory_bytes_per_second * 0.1, ...ops.map((op) => op.flops_per_second)) / 1.5;
  const px = (x) => left + (Math.log(x / x0) / Math.log(x1 / x0)) * (width - left - right);
  const py = (y) => top + (1 - Math.log(y / y0) / Math.log(y1 / y0)) * (height - top - bottom);
  const slope = (bandwidth) => {
    const start = Math.max(x0, y0 / bandwidth);
    const knee = Math.min(x1, peak / bandwidth);
    return `M${px(start)} ${py(start * bandwidth)}L${px(knee)} ${py(Math.min(peak, knee * bandwidth))}`;
  };
  const total = cost.ops.reduce((sum, op) => sum + op.seconds * op.times, 0);
  const label = (level, index) => {
    const x = Math.max(x0, (y0 / level.all) * 1.4) * 1.15 ** index;
    return s('text', { class: 'tick', x: px(x) + 9, y: py(x * level.all) + 9 }, level.name);
  };
  const memory = machine.levels.find((level) => level.capacity === null);
  return s('svg', { width, height, role: 'img', 'aria-label': t('machine.rooflineHint'), class: 'roofline' },
    decades(y0, y1).map((value) => [s('line', { class: 'grid', x1: left, x2: width - right, y1: py(value), y2: py(value) }), s('text', { class: 'tick', x: left - 6, y: py(value), 'text-anchor': 'end', 'dominant-baseline': 'central' }, round(value))]),
    decades(x0, x1).map((value) => [s('line', { class: 'grid', x1: px(value), x2: px(value), y1: top, y2: height - bottom }), s('text', { class: 'tick', x: px(value), y: height - bottom + 16, 'text-anchor': 'middle' }, value < 1 ? String(value) : round(value))]),
    s('text', { class: 'tick', x: width - right, y: height - 4, 'text-anchor': 'end' }, t('machine.intensity')),
    s('text', { class: 'tick', x: left, y: 10 }, 'FLOP/s'),
    machine.levels.map((level) => s('path', { class: level === memory ? 'roof' : 'roof thin', d: slope(level.all) })),
    s('path', { class: 'roof', d: `M${px(Math.min(x1, peak / Math.max(...machine.levels.map((level) => level.all))))} ${py(peak)}L${px(x1)} ${py(peak)}` }),
    s('text', { class: 'tick strong', x: width - right - 4, y: py(peak) - 6, 'text-anchor': 'end' }, `${cost.precision} ${si(peak, 'FLOP/s')}`),
    machine.levels.map(label),
    ops.map((op) => s('circle', { class: op.bound === 'compute' ? 'op compute' : 'op', cx: px(op.intensity), cy: py(op.flops_per_second), r: 4 + 12 * Math.sqrt((op.seconds * op.times) / total) },
      s('title', {}, `${op.name} (${op.direction}): ${si(op.flops_per_second, 'FLOP/s')}, ${op.intensity.toFixed(1)} FLOP/B`))));
}

function table(cost) {
  const total = cost.ops.reduce((sum, op) => sum + op.seconds * op.times, 0) || 1;
  return h('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': t('machine.ops') }, h('table', {},
    h('thead', {}, h('tr', {}, ['op', 'time', 'share', 'bound', 'times', 'flops', 'bytes', 'intensity'].map((name) => h('th', { class: name === 'op' || name === 'bound' ? null : 'number' }, t(`col.${name}`))))),
    h('tbody', {}, cost.ops.map((op) => h('tr', {},
      h('td', {}, op.name, op.direction === 'forward' ? null : h('small', {}, ` ${op.direction}`)),
      h('td', { class: 'number' }, seconds(op.seconds * op.times)), h('td', { class: 'number' }, percent((op.seconds * op.times) / total)), h('td', {}, limit(op.bound)),
      [String(op.times), op.flops ? si(op.flops) : '–', si(op.bytes, 'B'), op.flops ? op.intensity.toFixed(1) : '–'].map((value) => h('td', { class: 'number' }, value)))))));
}

function memory(parts) {
  const rows = Object.entries(parts).filter(([name, value]) => name !== 'peak' && value > 0);
  const total = rows.reduce((sum, [, value]) => sum + value, 0) || 1;
  return h('section', { class: 'memory' }, h('h3', {}, t('machine.memory'), h('span', { class: 'number' }, ` ${bytes(parts.peak)}`)),
    h('ol', { class: 'bars wide' }, rows.map(([name, value]) => h('li', { vars: { '--p': value / total } }, h('span', { class: 'word' }, t(`mem.${name}`, name)), h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span', { class: 'number' }, bytes(value))))));
}

function liveFacts(seen) {
  const cache = seen.models.reduce((sum, one) => sum + one.cache_bytes, 0);
  return h('div', { class: 'facts small' },
    fact(t('machine.requests'), String(seen.requests), t('machine.rejected', seen.rejected)),
    fact(t('machine.inFlight'), String(seen.in_flight), t('machine.queued', seen.models.reduce((sum, one) => sum + one.queued, 0))),
    fact(t('machine.resident'), bytes(seen.resident_bytes), null),
    fact(t('machine.cache'), bytes(cache), t('machine.of', bytes(seen.models.reduce((sum, one) => sum + one.cache_limit_bytes, 0)))));
}
