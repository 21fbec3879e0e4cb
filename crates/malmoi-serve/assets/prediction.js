// Prediction: a decoder's next word at each place, an encoder's word for a blank.

import { able, post } from './api.js';
import { arrows, choice, h, put, shown } from './dom.js';
import { percent } from './numbers.js';
import { busy, empty, failed } from './states.js';
import { t } from './texts.js';

const state = { text: '이 영화는 정말 재미있고 배우들의 연기도 좋았다', at: null, masked: null, models: {} };

export function render(body) {
  const parts = [nextWord(), blanks()];
  const input = h('input', { type: 'text', value: state.text, maxlength: 300, lang: 'ko', 'aria-label': t('sentence'), id: 'sentence' });
  const run = () => parts.forEach((part) => part.load());
  put(body,
    h('form', { class: 'ask', onsubmit: (event) => {
      event.preventDefault();
      Object.assign(state, { text: input.value.trim() || state.text, at: null, masked: null });
      run();
    } }, input, h('button', { type: 'submit' }, t('predict'))),
    h('div', { class: 'pair' }, parts.map((part) => part.node)));
  run();
  return () => parts.forEach((part) => part.leave());
}

/** A card that asks one route about the sentence, with its states. */
function card(kind, task, direction, ask, draw) {
  const node = h('section', { class: `card ${kind}`, 'aria-label': t(`kind.${kind}`) });
  const place = h('div', { class: 'inside' });
  const models = able(task, direction);
  let model = models.find((one) => one.id === state.models[task]) || models[0];
  let request = null;
  const picker = models.length > 1
    ? choice(models.map((one) => [one.id, one.id]), model.id, (id) => {
      model = models.find((one) => one.id === id);
      state.models[task] = id;
      load();
    })
    : model ? h('span', { class: 'model' }, model.id) : null;
  put(node, h('header', { class: 'cardhead' }, h('h2', {}, h('span', { class: 'swatch' }), t(`kind.${kind}`)), picker, h('p', {}, t(`prediction.${kind}`))), place);
  if (!model) put(place, empty(t(`none.${direction}`), t('none.text'), `malmoi serve --model ${kind}=DIR`));
  async function load(quiet) {
    if (!model) return;
    request?.abort();
    const own = (request = new AbortController());
    if (!quiet) put(place, busy());
    place.setAttribute('aria-busy', 'true');
    try {
      draw(place, await ask(model, own.signal), load);
    } catch (error) {
      if (error.name !== 'AbortError') put(place, failed(error, () => load()));
    } finally {
      if (request === own) place.removeAttribute('aria-busy');
    }
  }
  return { node, load, leave: () => request?.abort() };
}

/** Bars of candidates; the one that `marked` names by its id stands out. */
export function bars(candidates, marked, label) {
  const most = Math.max(...candidates.map((one) => one.probability), 1e-9);
  return h('ol', { class: 'bars', 'aria-label': label }, candidates.map((one) =>
    h('li', { class: one.id === marked ? 'right' : null, vars: { '--p': one.probability / most } },
      h('span', { class: 'word' }, shown(one.text)), h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span', { class: 'number' }, percent(one.probability)))));
}

function nextWord() {
  const ask = (model, signal) => post('/next-token', { model: model.id, text: state.text, top_k: 8 }, signal);
  return card('gpt', 'next-token', 'decoder', ask, function draw(place, answer) {
    const last = answer.tokens.length - 1;
    const at = Math.min(state.at ?? Math.floor(last / 2), last);
    const go = (index) => {
      state.at = Math.max(0, Math.min(last, index));
      const focused = document.activeElement?.dataset.focus;
      draw(place, answer);
      place.querySelector(`[data-focus="${focused}"]`)?.focus({ preventScroll: true });
    };
    const { candidates, actual } = answer.positions[at];
    put(place,
      arrows(h('div', { class: 'tokens', role: 'group', 'aria-label': t('prediction.places') }, answer.tokens.map((token, index) => {
        const before = index > 0 ? answer.positions[index - 1].actual.probability : null;
        return h('button', { type: 'button', class: `token known${index > at ? ' hidden' : ''}`, 'aria-pressed': String(index === at), 'data-focus': `place-${index}`, onclick: () => go(index), onfocus: () => index !== at && go(index) },
          shown(token.text.trim()), h('small', {}, before === null ? '·' : percent(before)));
      }))),
      h('div', { class: 'stepper' },
        h('button', { type: 'button', class: 'quiet', disabled: at === 0, 'data-focus': 'back', onclick: () => go(at - 1) }, '←', h('span', { class: 'visually' }, t('back'))),
        h('span', { class: 'number' }, t('prediction.step', at + 1, last + 1)),
        h('button', { type: 'button', class: 'quiet', disabled: at === last, 'data-focus': 'on', onclick: () => go(at + 1) }, '→', h('span', { class: 'visually' }, t('on')))),
      h('p', { class: 'sofar' }, answer.tokens.slice(0, at + 1).map((token) => token.text).join(''), h('span', { class: 'cursor', 'aria-hidden': 'true' })),
      bars(candidates, actual?.id, t('prediction.candidates')),
      h('p', { class: 'readout' }, actual
        ? [t('prediction.actual'), ' ', h('b', {}, shown(actual.text)), ' ', h('b', {}, percent(actual.probability)), ` · ${t('prediction.rank', actual.rank)}`]
        : t('prediction.end')));
  });
}

function blanks() {
  const masked = () => state.masked || [];
  const ask = async (model, signal) => {
    if (state.masked === null) {
      // Which words there are is the tokenizer's to say.
      const [tokens] = await post(`/tokenize?model=${encodeURIComponent(model.id)}`, { inputs: state.text }, signal);
      const words = tokens.map((_, index) => index).filter((index) => !tokens[index].special);
      state.masked = sameWord(tokens, words[Math.floor(words.length / 2)]);
    }
    return post('/fill-mask', { model: model.id, text: state.text, mask: masked(), top_k: 6 }, signal);
  };
  return card('bert', 'fill-mask', undefined, ask, (place, answer, load) => {
    const click = async (index) => {
      state.masked = sameWord(answer.tokens, index);
      const kept = `blank-${index}`;
      await load(true);
      place.querySelector(`[data-focus="${kept}"]`)?.focus({ preventScroll: true });
    };
    put(place,
      arrows(h('div', { class: 'tokens', role: 'group', 'aria-label': t('prediction.words') }, answer.tokens.map((token, index) => {
        const blank = masked().includes(index);
        return h('button', { type: 'button', class: `token${blank ? ' blank' : ''}`, disabled: token.special, 'aria-pressed': String(blank), 'data-focus': `blank-${index}`, onclick: () => click(index) },
          blank ? h('span', { title: token.text }, '[MASK]') : shown(token.text));
      }))),
      answer.blanks.map((blank) => h('section', { class: 'blankset' },
        h('h3', {}, t('prediction.blank'), ' ', h('b', {}, shown(blank.original?.text || '[MASK]')),
          blank.original ? h('span', { class: 'number' }, ` ${percent(blank.original.probability)} · ${t('prediction.rank', blank.original.rank)}`) : null),
        bars(blank.candidates, blank.original?.id, t('prediction.candidates')),
        h('p', { class: 'sofar' }, blank.candidates[0]?.filled))));
  });
}

/** The tokens of the word that a token belongs to. */
function sameWord(tokens, index) {
  const { word } = tokens[index];
  return word === null ? [index] : tokens.map((_, at) => at).filter((at) => tokens[at].word === word && !tokens[at].special);
}
