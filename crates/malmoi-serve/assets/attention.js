// Attention: who looks at whom, in an encoder and a decoder side by side.

import { able, post } from './api.js';
import { arrows, choice, h, onWidth, put, s, segmented, shown } from './dom.js';
import { percent } from './numbers.js';
import { busy, empty, failed } from './states.js';
import { t } from './texts.js';

/** Tokens that the large map has room for; a longer text is shown up to here. */
const SHOWN = 64;
const state = { text: '어제 카페 갔었어 거기 사람 많더라', form: 'map', models: {}, at: null };

export function render(body) {
  const panes = [pane('encoder'), pane('decoder')];
  const input = h('input', { type: 'text', value: state.text, maxlength: 300, lang: 'ko', 'aria-label': t('sentence'), id: 'sentence' });
  const run = () => {
    state.text = input.value.trim() || state.text;
    state.at = null;
    panes.forEach((one) => one.load());
  };
  const form = h('form', { class: 'ask', onsubmit: (event) => { event.preventDefault(); run(); } }, input, h('button', { type: 'submit' }, t('look')));
  const forms = () => segmented(t('drawing'), [['map', t('attention.map')], ['lines', t('attention.lines')]], state.form, (value) => {
    state.form = value;
    put(tools, forms(), hint);
    panes.forEach((one) => one.draw());
  });
  const hint = h('p', { class: 'hint' }, t('attention.hint'));
  const tools = h('div', { class: 'tools' }, forms(), hint);
  const select = (at) => {
    state.at = at;
    panes.forEach((one) => one.draw());
  };
  panes.forEach((one) => (one.select = select));
  put(body, form, tools, h('div', { class: 'pair' }, panes.map((one) => one.node)));
  run();
  return () => panes.forEach((one) => one.leave());
}

function pane(direction) {
  const kind = direction === 'encoder' ? 'bert' : 'gpt';
  const node = h('section', { class: `card ${kind}`, 'data-direction': direction, 'aria-label': t(`kind.${kind}`) });
  const models = able('attention', direction);
  const self = { node, select: () => {}, draw: () => {}, load: () => {}, leave: () => {} };
  if (!models.length) {
    put(node, head(kind), empty(t(`none.${direction}`), t('none.text'), `malmoi serve --model ${kind}=DIR`));
    return self;
  }
  let model = models.find((one) => one.id === state.models[direction]) || models[0];
  let answer = null;
  let at = { layer: model.n_layers - 1, head: 0 };
  let request = null;
  const picker = models.length > 1
    ? choice(models.map((one) => [one.id, one.id]), model.id, (id) => {
      model = models.find((one) => one.id === id);
      state.models[direction] = id;
      at = { layer: model.n_layers - 1, head: 0 };
      self.load();
    })
    : h('span', { class: 'model' }, model.id);
  const place = h('div', { class: 'inside' });
  put(node, head(kind, picker), place);

  self.load = async () => {
    request?.abort();
    const own = (request = new AbortController());
    put(place, busy());
    try {
      answer = await post('/attention', { model: model.id, text: state.text }, own.signal);
      self.draw();
    } catch (error) {
      if (error.name !== 'AbortError') put(place, failed(error, self.load));
    }
  };
  self.leave = () => request?.abort();
  self.draw = () => {
    if (!answer) return;
    const tokens = answer.tokens.slice(0, SHOWN);
    const matrix = answer.attention[at.layer][at.head];
    const causal = answer.direction === 'decoder';
    const chosen = near(tokens, state.at);
    const pick = (index) => self.select(tokens[index].special ? { special: index } : { start: tokens[index].start });
    // The focus must survive the new drawing for those who move by keys.
    const focused = node.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const map = h('div', { class: 'drawing' });
    put(place,
      strip(tokens, matrix, chosen, causal, pick),
      readout(tokens, matrix, chosen, causal),
      h('p', { class: 'caption' }, t('attention.caption', at.layer + 1, at.head + 1), h('span', { class: 'scale' }, h('i', {}), '0 – 1')),
      map,
      multiples(answer, at, kind, (layer, headIndex) => { at = { layer, head: headIndex }; self.draw(); }),
      answer.tokens.length > SHOWN || answer.truncated ? h('p', { class: 'hint' }, t('attention.cut', tokens.length)) : null);
    const drawing = state.form === 'map' ? heatMap : lines;
    onWidth(map, (width) => put(map, drawing(tokens, matrix, chosen, causal, width, pick)));
    if (focused) place.querySelector(`[data-focus="${focused}"]`)?.focus({ preventScroll: true });
  };
  return self;
}

const head = (kind, picker) =>
  h('header', { class: 'cardhead' }, h('h2', {}, h('span', { class: 'swatch' }), t(`kind.${kind}`)), picker, h('p', {}, t(`attention.${kind}`)));

/** The token that a place of the sentence belongs to; by default the middle of the text. */
function near(tokens, at) {
  if (at?.special !== undefined) return Math.min(at.special, tokens.length - 1);
  const start = at?.start ?? tokens.reduce((last, token) => Math.max(last, token.start), 0) / 2;
  let best = 0;
  tokens.forEach((token, index) => {
    if (!token.special && (token.start <= start || tokens[best].special)) best = index;
  });
  return best;
}

function strip(tokens, matrix, chosen, causal, pick) {
  const row = matrix[chosen];
  const most = Math.max(...row.slice(0, tokens.length));
  return arrows(h('div', { class: 'tokens', role: 'group', 'aria-label': t('attention.words') }, tokens.map((token, index) => {
    const hidden = causal && index > chosen;
    return h('button', {
      type: 'button', class: `token${hidden ? ' hidden' : ''}`, 'aria-pressed': String(index === chosen), 'data-focus': `token-${index}`,
      'aria-label': `${token.text}, ${hidden ? t('attention.unseen') : percent(row[index])}`,
      vars: { '--p': hidden ? 0 : row[index] / most }, onclick: () => pick(index), onfocus: () => index !== chosen && pick(index), onpointerenter: (event) => event.pointerType === 'mouse' && index !== chosen && pick(index),
    }, shown(token.text.trim()));
  })));
}

function readout(tokens, matrix, chosen, causal) {
  const order = tokens.map((_, index) => index).filter((index) => !causal || index <= chosen)
    .sort((a, b) => matrix[chosen][b] - matrix[chosen][a]).slice(0, 4);
  const side = causal ? t('attention.leftOnly', chosen + 1) : t('attention.bothSides', tokens.length);
  return h('p', { class: 'readout' }, h('b', {}, shown(tokens[chosen].text.trim())), ` ${side} `,
    h('span', { class: 'list' }, order.map((index) => h('span', {}, shown(tokens[index].text.trim()), ' ', h('b', {}, percent(matrix[chosen][index]))))));
}

/** A token as it fits beside a map. */
function brief(text) {
  const whole = shown(text);
  return whole.length > 6 ? `${whole.slice(0, 5)}…` : whole;
}

/** Rows look, columns are looked at. What a decoder may not see is hatched. */
function heatMap(tokens, matrix, chosen, causal, width, pick) {
  const n = tokens.length;
  const names = tokens.map((token) => brief(token.text.trim()));
  const label = Math.min(width * 0.2, 14 + 11 * Math.max(...names.map((name) => name.length)));
  const cell = Math.min(34, (width - label - 2) / n);
  const size = Math.max(7, Math.min(12, cell * 0.62));
  const side = cell * n;
  const id = causal ? 'hatch-gpt' : 'hatch-bert';
  const cells = [];
  for (let q = 0; q < n; q += 1) {
    for (let k = 0; k < n; k += 1) {
      const p = matrix[q][k];
      const masked = causal && k > q;
      cells.push(s('rect', {
        x: label + k * cell, y: label + q * cell, width: cell - 1, height: cell - 1, rx: 1.5, class: masked ? 'masked' : 'cell',
        'data-q': q, 'data-k': k, 'data-p': p, fill: masked ? `url(#${id})` : 'currentColor', 'fill-opacity': masked ? 1 : 0.04 + 0.96 * Math.sqrt(p), opacity: q === chosen ? 1 : 0.78,
        onclick: () => pick(q),
      }, s('title', {}, `${tokens[q].text.trim()} → ${tokens[k].text.trim()}: ${masked ? t('attention.unseen') : percent(p)}`)));
    }
  }
  const rows = tokens.map((token, q) => s('text', { x: label - 6, y: label + (q + 0.5) * cell, class: q === chosen ? 'axis on' : 'axis', 'text-anchor': 'end', 'dominant-baseline': 'central', 'font-size': size }, names[q]));
  const columns = tokens.map((token, k) => s('text', { transform: `translate(${label + (k + 0.5) * cell} ${label - 6}) rotate(-60)`, class: causal && k > chosen ? 'axis off' : 'axis', 'font-size': size }, names[k]));
  return s('svg', { class: 'heat', width: label + side + 14, height: label + side + 4, role: 'img', 'aria-label': t('attention.mapLabel') },
    s('defs', {}, s('pattern', { id, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, s('rect', { width: 5, height: 5, class: 'blank' }), s('line', { y2: 5, class: 'stripe' }))),
    cells, rows, columns,
    s('rect', { x: label - 1, y: label + chosen * cell - 1, width: side + 1, height: cell + 1, class: 'frame' }));
}

/** Tokens twice, left looking at right. */
function lines(tokens, matrix, chosen, causal, width, pick) {
  const gap = 26;
  const [left, right] = [width * 0.3, width * 0.7];
  const y = (index) => 16 + index * gap;
  const drawn = [];
  tokens.forEach((_, q) => tokens.forEach((__, k) => {
    const p = matrix[q][k];
    if (p < 0.02) return;
    const own = q === chosen;
    const middle = (left + right) / 2;
    drawn.push(s('path', { d: `M${left + 6} ${y(q)}C${middle} ${y(q)} ${middle} ${y(k)} ${right - 6} ${y(k)}`, class: own ? 'line on' : 'line', 'stroke-width': 0.6 + 5 * p, 'stroke-opacity': own ? 0.35 + 0.65 * p : 0.12 * Math.sqrt(p) }));
  }));
  drawn.sort((a, b) => a.classList.contains('on') - b.classList.contains('on'));
  const word = (token, index, x, anchor, looked) => s('text', {
    x, y: y(index), 'text-anchor': anchor, 'dominant-baseline': 'central', 'font-size': 13,
    class: looked ? (causal && index > chosen ? 'axis off' : 'axis') : index === chosen ? 'axis on' : 'axis', onclick: looked ? null : () => pick(index),
    onpointerenter: looked ? null : (event) => event.pointerType === 'mouse' && index !== chosen && pick(index),
  }, shown(token.text.trim()).slice(0, 12));
  return s('svg', { class: 'heat', width, height: y(tokens.length), role: 'img', 'aria-label': t('attention.linesLabel') },
    drawn, tokens.map((token, index) => [word(token, index, left, 'end', false), word(token, index, right, 'start', true)]));
}

/** Every head of every layer, small. */
function multiples(answer, at, kind, choose) {
  const color = getComputedStyle(document.documentElement).getPropertyValue(`--${kind}`);
  const rows = answer.attention.map((heads, layer) => [
    h('span', { class: 'rowname' }, t('layer', layer + 1)),
    heads.map((matrix, headIndex) => h('button', {
      type: 'button', class: 'mini', title: t('attention.caption', layer + 1, headIndex + 1), 'aria-label': t('attention.caption', layer + 1, headIndex + 1), 'aria-pressed': String(layer === at.layer && headIndex === at.head), 'data-focus': `head-${layer}-${headIndex}`,
      onclick: () => choose(layer, headIndex),
    }, tile(matrix, color))),
  ]);
  return h('div', { class: 'multiples' }, h('h3', {}, t('attention.heads')),
    arrows(h('div', { class: 'grid', vars: { '--n': answer.heads.length } }, rows)));
}

function tile(matrix, color) {
  const n = matrix.length;
  const canvas = h('canvas', { width: n, height: n, 'aria-hidden': 'true' });
  const brush = canvas.getContext('2d');
  brush.fillStyle = color;
  matrix.forEach((row, q) => row.forEach((p, k) => {
    brush.globalAlpha = Math.sqrt(p);
    brush.fillRect(k, q, 1, 1);
  }));
  return canvas;
}
