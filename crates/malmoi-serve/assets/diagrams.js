// The block diagrams: what BERT keeps of the encoder, what GPT drops from the decoder, and T5 with both.

import { served } from './api.js';
import { h, put } from './dom.js';
import { t } from './texts.js';

/** Boxes of a stack from the bottom up; a box that starts with `-` is left out of this model. */
const STACKS = {
  bert: [{ name: 'encoder', boxes: ['embed', 'self', 'add', 'ffn', 'add2', 'mlm'] }],
  t5: [{ name: 'encoder', boxes: ['embed', 'self', 'add', 'ffn', 'add2'] }, { name: 'decoder', boxes: ['embed', 'causal', 'add', 'cross', 'add', 'ffn', 'add2', 'next'] }],
  gpt: [{ name: 'decoder', boxes: ['embed', 'causal', 'add', '-cross', 'ffn', 'add2', 'next'] }],
};
const FORMULAS = {
  embed: 'x = E[ids] + P[positions]',
  self: 'softmax(Q Kᵀ / √d_head) V',
  causal: 'softmax(Q Kᵀ / √d_head + M) V,  M[i, j] = −∞ for j > i',
  cross: 'softmax(Q K_encᵀ / √d_head) V_enc',
  add: 'x = x + attention(x),  norm',
  add2: 'x = x + ffn(x),  norm',
  ffn: 'W₂ · gelu(W₁ x + b₁) + b₂',
  mlm: 'softmax(E · h[blank])',
  next: 'softmax(E · h[t])  →  x[t + 1]',
};
const LEADS = { self: 'attention', causal: 'attention', cross: 'attention', mlm: 'prediction', next: 'prediction', ffn: 'machine', embed: 'machine' };
const state = { model: 'gpt', box: 'causal' };

/** The section with the diagrams and what the chosen box computes. */
export function diagrams() {
  const node = h('section', { class: 'card diagrams', 'aria-label': t('blocks.title') });
  const draw = () => put(node,
    h('header', { class: 'cardhead' }, h('h2', {}, t('blocks.title')), h('p', {}, t('blocks.lead'))),
    h('div', { class: 'stacks' }, Object.entries(STACKS).map(([name, stacks]) =>
      h('div', { class: `stackset ${name}` }, h('h3', {}, h('span', { class: 'swatch' }), t(`blocks.${name}`)), h('div', { class: 'columns' }, stacks.map((stack) => column(name, stack, draw))), h('p', { class: 'hint' }, t(`blocks.${name}.text`))))),
    details());
  draw();
  return node;
}

function column(model, { name, boxes }, draw) {
  const layer = boxes.slice(1).filter((box) => box !== 'mlm' && box !== 'next');
  const top = boxes.filter((box) => box === 'mlm' || box === 'next');
  const button = (box) => {
    const left = box.startsWith('-');
    const key = left ? box.slice(1) : box;
    const on = state.model === model && state.box === key;
    return h('button', { type: 'button', class: `box ${key}${left ? ' dropped' : ''}`, 'aria-pressed': String(on), onclick: (event) => {
      Object.assign(state, { model, box: key });
      const section = event.target.closest('.diagrams');
      draw();
      section.querySelector('.box[aria-pressed="true"]')?.focus({ preventScroll: true });
    } }, h('span', {}, t(`box.${key}`)), left ? h('small', {}, t('blocks.dropped')) : null);
  };
  return h('div', { class: 'stack' }, h('h4', {}, t(`blocks.${name}`)),
    [...top].reverse().map(button), h('div', { class: 'layer' }, h('span', { class: 'times' }, t('blocks.times')), [...layer].reverse().map(button)), button(boxes[0]));
}

/** What the box computes, with the shapes of a served model where there is one. */
function details() {
  const direction = { bert: 'encoder', gpt: 'decoder', t5: 'encoder-decoder' }[state.model];
  const model = served.models.find((one) => one.direction === direction);
  const sizes = model ? { T: 'T', D: model.d_model, H: model.n_heads, K: model.n_kv_heads, d: model.d_head, F: model.d_ff, V: model.vocab_size } : { T: 'T', D: 'd_model', H: 'n_heads', K: 'n_heads', d: 'd_head', F: 'd_ff', V: 'vocab_size' };
  const { D, H, K, d, F, V } = sizes;
  const attention = [['x', `[T, ${D}]`], ['Q', `[T, ${H} × ${d}]`], ['K, V', `[T, ${K} × ${d}]`], ['softmax', `[${H}, T, T]`], [t('shape.out'), `[T, ${D}]`]];
  const shapes = {
    embed: [['ids', '[T]'], ['E', `[${V}, ${D}]`], ['x', `[T, ${D}]`]],
    self: attention, causal: attention,
    cross: [['x', `[T, ${D}]`], ['Q', `[T, ${H} × ${d}]`], ['K, V', `[S, ${K} × ${d}]`], ['softmax', `[${H}, T, S]`], [t('shape.out'), `[T, ${D}]`]],
    add: [['x', `[T, ${D}]`]], add2: [['x', `[T, ${D}]`]],
    ffn: [['x', `[T, ${D}]`], ['W₁ x', `[T, ${F}]`], [t('shape.out'), `[T, ${D}]`]],
    mlm: [['h', `[${t('shape.blanks')}, ${D}]`], [t('shape.out'), `[${t('shape.blanks')}, ${V}]`]],
    next: [['h', `[T, ${D}]`], [t('shape.out'), `[T, ${V}]`]],
  }[state.box];
  const lead = LEADS[state.box];
  return h('div', { class: `details ${state.model}`, role: 'status' },
    h('div', {}, h('h3', {}, t(`box.${state.box}`)), h('p', {}, t(`box.${state.box}.text`)), h('code', { class: 'formula' }, FORMULAS[state.box]), lead ? h('a', { href: `#/${lead}` }, t('blocks.see', t(`nav.${lead}`))) : null),
    h('div', {}, h('p', { class: 'hint' }, model ? t('blocks.shapesOf', model.id, model.n_layers) : t('blocks.shapes')),
      h('dl', { class: 'shapes' }, shapes.map(([name, shape]) => h('div', {}, h('dt', {}, name), h('dd', {}, shape))))));
}
