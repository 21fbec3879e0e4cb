// Attention: who looks at whom, in an encoder and a decoder side by side, and from one to the other in an encoder-decoder.

import { able, post } from './api.js';
import { arrows, choice, field, h, onWidth, put, s, segmented, shown } from './dom.js';
import { percent } from './numbers.js';
import { busy, empty, failed } from './states.js';
import { t } from './texts.js';

/** Tokens that the large map has room for; a longer text is shown up to here. */
const SHOWN = 64;
const KINDS = { encoder: 'bert', decoder: 'gpt', 'encoder-decoder': 't5' };
const state = { text: '어제 카페 갔었어 거기 사람 많더라', target: null, part: 'cross', form: 'map', models: {}, at: null };

export function render(body) {
  const panes = [pane('encoder'), pane('decoder')];
  const pair = [...panes];
  if (able('attention', 'encoder-decoder').length) panes.push(pane('encoder-decoder'));
  const input = h('input', { type: 'text', value: state.text, maxlength: 300, lang: 'ko', 'aria-label': t('sentence'), id: 'sentence' });
  const run = () => {
    state.text = input.value.trim() || state.text;
    Object.assign(state, { at: null, target: null });
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
  pair.forEach((one) => (one.select = select));
  put(body, form, tools, h('div', { class: 'pair' }, pair.map((one) => one.node)), panes.slice(2).map((one) => one.node));
  run();
  return () => panes.forEach((one) => one.leave());
}

function pane(direction) {
  const kind = KINDS[direction];
  const both = kind === 't5';
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
  // Where an encoder-decoder is looked at: its words are not those of the sentence alone.
  let own = null;
  const picker = models.length > 1
    ? choice(models.map((one) => [one.id, one.id]), model.id, (id) => {
      model = models.find((one) => one.id === id);
      state.models[direction] = id;
      at = { layer: model.n_layers - 1, head: 0 };
      state.target = both ? null : state.target;
      self.load();
    })
    : h('span', { class: 'model' }, model.id);
  const place = h('div', { class: 'inside' });
  put(node, head(kind, picker), place);

  self.load = async () => {
    request?.abort();
    const { signal } = (request = new AbortController());
    own = null;
    put(place, busy());
    try {
      const asked = { model: model.id, text: state.text };
      if (both) asked.target = state.target ??= await written(model, state.text, signal);
      answer = await post('/attention', asked, signal);
      self.draw();
    } catch (error) {
      if (error.name !== 'AbortError') put(place, failed(error, self.load));
    }
  };
  self.leave = () => request?.abort();
  self.draw = () => {
    if (!answer) return;
    const { all, rows, columns, causal } = part(answer);
    at.layer = Math.min(at.layer, all.length - 1);
    const matrix = all[at.layer][at.head];
    const chosen = near(rows, both ? own : state.at);
    const pick = (index) => {
      const next = rows[index].special ? { special: index } : { start: rows[index].start };
      if (!both) return self.select(next);
      own = next;
      return self.draw();
    };
    const view = { rows, columns, matrix, chosen, causal };
    // The focus must survive the new drawing for those who move by keys.
    const focused = node.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    const map = h('div', { class: 'drawing' });
    const words = [strip(view, pick), rows === columns ? null : looked(view), readout(view)];
    const picture = [h('p', { class: 'caption' }, t('attention.caption', at.layer + 1, at.head + 1), h('span', { class: 'scale' }, h('i', {}), '0 – 1')), map];
    const heads = multiples(all, at, kind, (layer, headIndex) => { at = { layer, head: headIndex }; self.draw(); });
    const cut = answer.tokens.length > SHOWN || answer.truncated ? h('p', { class: 'hint' }, t('attention.cut', SHOWN)) : null;
    const column = (...parts) => h('div', { class: 'inside' }, parts);
    // The card of an encoder-decoder is as wide as the two others.
    put(place, both ? [ask(), h('div', { class: 'across' }, column(words, heads), column(picture))] : [words, picture, heads], cut);
    const drawing = state.form === 'map' ? heatMap : lines;
    onWidth(map, (width) => put(map, drawing(view, width, pick)));
    if (focused) place.querySelector(`[data-focus="${focused}"]`)?.focus({ preventScroll: true });
  };
  /** What the decoder writes, and which of the three attentions is shown. */
  const ask = () => {
    const input = h('input', { type: 'text', value: state.target, maxlength: 300, lang: 'ko', 'data-focus': 'target' });
    const submit = (event) => {
      event.preventDefault();
      state.target = input.value.trim() || null;
      self.load();
    };
    const parts = ['cross', 'read', 'write'].map((key) => [key, t(`attention.${key}`)]);
    const choose = (key) => {
      state.part = key;
      own = null;
      self.draw();
    };
    return [h('form', { class: 'ask target', onsubmit: submit }, field(t('attention.target'), input), h('button', { type: 'submit', class: 'quiet' }, t('look'))),
      h('div', { class: 'tools' }, segmented(t('attention.part'), parts, state.part, choose), h('p', { class: 'hint' }, t(`attention.${state.part}.hint`)))];
  };
  return self;
}

/** What a model writes for a text; the text itself where it writes nothing. */
async function written(model, text, signal) {
  if (!model.tasks.includes('generate')) return text;
  const answer = await post('/v1/completions', { model: model.id, prompt: text, max_tokens: 24, temperature: 0, repetition_penalty: 1.3 }, signal);
  return answer.choices[0].text.trim() || text;
}

/** The attention that is shown: who looks, at whom, and with what probability. */
function part({ direction, tokens, attention, target_tokens: target, target_attention: own, cross_attention: cross }) {
  const read = tokens.slice(0, SHOWN);
  if (direction !== 'encoder-decoder') return { all: attention, rows: read, columns: read, causal: direction === 'decoder' };
  const write = target.slice(0, SHOWN);
  return {
    cross: { all: cross, rows: write, columns: read, causal: false },
    read: { all: attention, rows: read, columns: read, causal: false },
    write: { all: own, rows: write, columns: write, causal: true },
  }[state.part];
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

/** The words that look; where they look at each other, each as dark as it is looked at. */
function strip({ rows, columns, matrix, chosen, causal }, pick) {
  const row = rows === columns ? matrix[chosen] : rows.map(() => 0);
  const most = Math.max(...row.slice(0, rows.length)) || 1;
  return arrows(h('div', { class: 'tokens', role: 'group', 'aria-label': t('attention.words') }, rows.map((token, index) => {
    const hidden = causal && index > chosen;
    return h('button', {
      type: 'button', class: `token${hidden ? ' hidden' : ''}`, 'aria-pressed': String(index === chosen), 'data-focus': `token-${index}`,
      'aria-label': rows === columns ? `${token.text}, ${hidden ? t('attention.unseen') : percent(row[index])}` : token.text,
      vars: { '--p': hidden ? 0 : row[index] / most }, onclick: () => pick(index), onfocus: () => index !== chosen && pick(index), onpointerenter: (event) => event.pointerType === 'mouse' && index !== chosen && pick(index),
    }, shown(token.text.trim()));
  })));
}

/** Words of another text that are looked at. */
function looked({ columns, matrix, chosen }) {
  const row = matrix[chosen].slice(0, columns.length);
  const most = Math.max(...row);
  return h('div', { class: 'lookedat' }, h('h3', {}, t('attention.readWords')), h('div', { class: 'tokens' }, columns.map((token, index) =>
    h('span', { class: 'token', title: percent(row[index]), vars: { '--p': row[index] / most } }, shown(token.text.trim())))));
}

function readout({ rows, columns, matrix, chosen, causal }) {
  const order = columns.map((_, index) => index).filter((index) => !causal || index <= chosen)
    .sort((a, b) => matrix[chosen][b] - matrix[chosen][a]).slice(0, 4);
  const side = causal ? t('attention.leftOnly', chosen + 1) : t('attention.bothSides', columns.length);
  return h('p', { class: 'readout' }, h('b', {}, shown(rows[chosen].text.trim())), ` ${side} `,
    h('span', { class: 'list' }, order.map((index) => h('span', {}, shown(columns[index].text.trim()), ' ', h('b', {}, percent(matrix[chosen][index]))))));
}

/** A token as it fits beside a map. */
function brief(text) {
  const whole = shown(text);
  return whole.length > 6 ? `${whole.slice(0, 5)}…` : whole;
}

/** Patterns have names of their own in a page. */
let hatches = 0;

/** Rows look, columns are looked at. What a decoder may not see is hatched. */
function heatMap({ rows: looking, columns: seen, matrix, chosen, causal }, width, pick) {
  const names = (tokens) => tokens.map((token) => brief(token.text.trim()));
  const [left, top] = [names(looking), names(seen)];
  const label = Math.min(width * 0.2, 14 + 11 * Math.max(...[...left, ...top].map((name) => name.length)));
  const cell = Math.min(34, (width - label - 2) / Math.max(looking.length, seen.length));
  const size = Math.max(7, Math.min(12, cell * 0.62));
  const [across, down] = [cell * seen.length, cell * looking.length];
  const id = `hatch-${(hatches += 1)}`;
  const cells = [];
  for (let q = 0; q < looking.length; q += 1) {
    for (let k = 0; k < seen.length; k += 1) {
      const p = matrix[q][k];
      const masked = causal && k > q;
      cells.push(s('rect', {
        x: label + k * cell, y: label + q * cell, width: cell - 1, height: cell - 1, rx: 1.5, class: masked ? 'masked' : 'cell',
        'data-q': q, 'data-k': k, 'data-p': p, fill: masked ? `url(#${id})` : 'currentColor', 'fill-opacity': masked ? 1 : 0.04 + 0.96 * Math.sqrt(p), opacity: q === chosen ? 1 : 0.78,
        onclick: () => pick(q),
      }, s('title', {}, `${looking[q].text.trim()} → ${seen[k].text.trim()}: ${masked ? t('attention.unseen') : percent(p)}`)));
    }
  }
  const rows = looking.map((_, q) => s('text', { x: label - 6, y: label + (q + 0.5) * cell, class: q === chosen ? 'axis on' : 'axis', 'text-anchor': 'end', 'dominant-baseline': 'central', 'font-size': size }, left[q]));
  const columns = seen.map((_, k) => s('text', { transform: `translate(${label + (k + 0.5) * cell} ${label - 6}) rotate(-60)`, class: causal && k > chosen ? 'axis off' : 'axis', 'font-size': size }, top[k]));
  return s('svg', { class: 'heat', width: label + across + 14, height: label + down + 4, role: 'img', 'aria-label': t('attention.mapLabel') },
    s('defs', {}, s('pattern', { id, width: 5, height: 5, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, s('rect', { width: 5, height: 5, class: 'blank' }), s('line', { y2: 5, class: 'stripe' }))),
    cells, rows, columns,
    s('rect', { x: label - 1, y: label + chosen * cell - 1, width: across + 1, height: cell + 1, class: 'frame' }));
}

/** Those that look on the left, those that are looked at on the right. */
function lines({ rows, columns, matrix, chosen, causal }, width, pick) {
  const gap = 26;
  const [left, right] = [width * 0.3, width * 0.7];
  const y = (index) => 16 + index * gap;
  const drawn = [];
  rows.forEach((_, q) => columns.forEach((__, k) => {
    const p = matrix[q][k];
    if (p < 0.02) return;
    const own = q === chosen;
    const middle = (left + right) / 2;
    drawn.push(s('path', { d: `M${left + 6} ${y(q)}C${middle} ${y(q)} ${middle} ${y(k)} ${right - 6} ${y(k)}`, class: own ? 'line on' : 'line', 'stroke-width': 0.6 + 5 * p, 'stroke-opacity': own ? 0.35 + 0.65 * p : 0.12 * Math.sqrt(p) }));
  }));
  drawn.sort((a, b) => a.classList.contains('on') - b.classList.contains('on'));
  const word = (token, index, x, anchor, seen) => s('text', {
    x, y: y(index), 'text-anchor': anchor, 'dominant-baseline': 'central', 'font-size': 13,
    class: seen ? (causal && index > chosen ? 'axis off' : 'axis') : index === chosen ? 'axis on' : 'axis', onclick: seen ? null : () => pick(index),
    onpointerenter: seen ? null : (event) => event.pointerType === 'mouse' && index !== chosen && pick(index),
  }, shown(token.text.trim()).slice(0, 12));
  return s('svg', { class: 'heat', width, height: y(Math.max(rows.length, columns.length)), role: 'img', 'aria-label': t('attention.linesLabel') },
    drawn, rows.map((token, index) => word(token, index, left, 'end', false)), columns.map((token, index) => word(token, index, right, 'start', true)));
}

/** Every head of every layer, small. */
function multiples(all, at, kind, choose) {
  const color = getComputedStyle(document.documentElement).getPropertyValue(`--${kind}`);
  const rows = all.map((heads, layer) => [
    h('span', { class: 'rowname' }, t('layer', layer + 1)),
    heads.map((matrix, headIndex) => h('button', {
      type: 'button', class: 'mini', title: t('attention.caption', layer + 1, headIndex + 1), 'aria-label': t('attention.caption', layer + 1, headIndex + 1), 'aria-pressed': String(layer === at.layer && headIndex === at.head), 'data-focus': `head-${layer}-${headIndex}`,
      onclick: () => choose(layer, headIndex),
    }, tile(matrix, color))),
  ]);
  return h('div', { class: 'multiples' }, h('h3', {}, t('attention.heads')),
    arrows(h('div', { class: 'grid', vars: { '--n': all[0].length } }, rows)));
}

function tile(matrix, color) {
  const canvas = h('canvas', { width: matrix[0].length, height: matrix.length, 'aria-hidden': 'true' });
  const brush = canvas.getContext('2d');
  brush.fillStyle = color;
  matrix.forEach((row, q) => row.forEach((p, k) => {
    brush.globalAlpha = Math.sqrt(p);
    brush.fillRect(k, q, 1, 1);
  }));
  return canvas;
}
