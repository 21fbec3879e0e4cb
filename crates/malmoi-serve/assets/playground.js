// Playground: writing with a decoder, and tasks.

import { able, events } from './api.js';
import { choice, field, h, put, segmented, shown } from './dom.js';
import { percent } from './numbers.js';
import { empty, failed } from './states.js';
import { TASKS } from './tasks.js';
import { t } from './texts.js';

const state = {
  tab: 'generate', prompt: '이 영화는 정말', model: null, pieces: [], base: null, open: null,
  settings: { temperature: 0.8, top_k: 40, top_p: 0.95, repetition_penalty: 1.1, max_tokens: 40, seed: 1 },
};
const CONTROLS = [['temperature', 0, 2, 0.05], ['top_k', 0, 200, 1], ['top_p', 0.05, 1, 0.05], ['repetition_penalty', 1, 2, 0.05], ['max_tokens', 1, 200, 1], ['seed', 0, 9999, 1]];

export function render(body) {
  let leave = null;
  const place = h('div', {});
  const tabs = h('div', { class: 'tools' });
  const open = (tab) => {
    leave?.();
    state.tab = tab;
    put(tabs, segmented(t('playground.what'), ['generate', ...Object.keys(TASKS)].map((key) => [key, t(`task.${key}`)]), tab, open));
    put(place);
    leave = (tab === 'generate' ? generation(place) : TASKS[tab](place)) || null;
  };
  put(body, tabs, place);
  open(state.tab);
  return () => leave?.();
}

function generation(place) {
  const models = able('generate');
  if (!models.length) {
    put(place, empty(t('none.decoder'), t('none.text'), 'malmoi serve --model gpt=DIR'));
    return null;
  }
  let model = models.find((one) => one.id === state.model) || models[0];
  let request = null;
  const prompt = h('textarea', { rows: 3, lang: 'ko', maxlength: 2000, id: 'prompt' });
  prompt.value = state.prompt;
  prompt.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) start();
  });
  const paper = h('div', { class: 'paper', id: 'written', 'aria-live': 'off' });
  const side = h('div', { class: 'side', id: 'alternatives' });
  const facts = h('p', { class: 'hint number', role: 'status', id: 'facts' });
  const write = h('button', { type: 'submit', id: 'write' }, t('write'));
  const stop = h('button', { type: 'button', class: 'quiet', onclick: () => request?.abort() }, t('stop'));

  const sliders = CONTROLS.map(([name, min, max, step]) => {
    const output = h('output', { class: 'number' }, String(state.settings[name]));
    const slider = h('input', { type: 'range', min, max, step, onchange: null, 'aria-label': t(`set.${name}`) });
    slider.value = state.settings[name];
    slider.addEventListener('input', () => {
      state.settings[name] = Number(slider.value);
      output.textContent = slider.value;
    });
    return h('label', { class: 'slider' }, h('span', {}, t(`set.${name}`)), output, slider, h('small', {}, t(`set.${name}.hint`)));
  });

  const running = (on) => {
    write.disabled = on;
    stop.disabled = !on;
    paper.toggleAttribute('data-running', on);
  };

  const paint = () => {
    if (!state.base && !state.pieces.length) {
      put(paper, h('p', { class: 'hint' }, t('playground.nothing')));
      put(side, h('p', { class: 'hint' }, t('playground.pick')));
      return;
    }
    put(paper, h('span', { class: 'prompt' }, state.base?.text ?? state.prompt), state.pieces.map(chip));
    alternatives();
  };

  // A button breaks no line, so a line end is a sign on the button and a real one behind it.
  const chip = (piece, index) => [h('button', {
    type: 'button', class: 'piece', 'aria-pressed': String(state.open === index), 'aria-label': `${shown(piece.text)} ${percent(piece.probability)}`,
    vars: { '--p': piece.probability }, onclick: () => { state.open = index; paint(); },
  }, piece.text.replace(/\n/g, '⏎')), piece.text.includes('\n') ? '\n' : null];

  const alternatives = () => {
    const piece = state.pieces[state.open];
    if (!piece) return put(side, h('p', { class: 'hint' }, t('playground.pick')));
    return put(side,
      h('h3', {}, shown(piece.text), h('span', { class: 'number' }, ` ${percent(piece.probability)}`)),
      h('p', { class: 'hint' }, t('playground.branch')),
      h('div', { class: 'branches' }, piece.alternatives.map((one) =>
        h('button', { type: 'button', class: one.id === piece.ids[0] ? 'branch right' : 'branch', disabled: !state.base?.ids || request !== null, vars: { '--p': one.probability }, onclick: () => branch(state.open, one) },
          h('span', { class: 'word' }, shown(one.text)), h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span', { class: 'number' }, percent(one.probability))))));
  };

  /** Goes on from what was written before a piece, with another token in its place. */
  const branch = (index, candidate) => {
    const kept = state.pieces.slice(0, index);
    const taken = { ...state.pieces[index], ids: [candidate.id], text: candidate.text, probability: candidate.probability };
    state.pieces = [...kept, taken];
    state.open = null;
    go([...state.base.ids, ...kept.flatMap((one) => one.ids), candidate.id]);
  };

  const start = () => {
    state.prompt = prompt.value;
    if (!state.prompt.trim()) return prompt.focus();
    Object.assign(state, { pieces: [], base: { text: state.prompt, ids: null }, open: null });
    return go(state.prompt);
  };

  async function go(given) {
    request?.abort();
    const own = (request = new AbortController());
    const began = performance.now();
    let [first, count, end] = [null, 0, ''];
    running(true);
    paint();
    put(facts, t('working'));
    try {
      const body = { model: model.id, prompt: given, logprobs: 5, return_token_ids: true, ...state.settings };
      if (!body.top_k) delete body.top_k;
      for await (const chunk of events('/v1/completions', body, own.signal)) {
        const [choiceNow] = chunk.choices;
        if (chunk.prompt_token_ids && !state.base.ids) [state.base.ids] = chunk.prompt_token_ids;
        if (!choiceNow) continue;
        first ??= performance.now() - began;
        const fresh = pieces(choiceNow);
        count += choiceNow.logprobs?.token_ids.length || 0;
        end = choiceNow.finish_reason || end;
        state.pieces.push(...fresh);
        paper.append(...fresh.flatMap((piece, index) => chip(piece, state.pieces.length - fresh.length + index)).filter(Boolean));
      }
      const took = (performance.now() - began) / 1000;
      put(facts, t('playground.facts', count, (count / took).toFixed(0), first?.toFixed(0) ?? '–', end));
    } catch (error) {
      if (error.name === 'AbortError') put(facts, t('stopped'));
      else put(facts, failed(error, start));
    } finally {
      if (request === own) {
        request = null;
        running(false);
        if (paper.isConnected) paint();
      }
    }
  }

  const settings = h('details', { class: 'settingsbox', open: innerWidth > 760 }, h('summary', {}, t('playground.settings')), h('div', { class: 'sliders' }, sliders));
  put(place, h('div', { class: 'workbench' },
    h('form', { class: 'card', onsubmit: (event) => { event.preventDefault(); start(); } },
      field(t('playground.prompt'), prompt),
      models.length > 1 ? field(t('model'), choice(models.map((one) => [one.id, one.id]), model.id, (id) => { state.model = id; model = models.find((one) => one.id === id); })) : null,
      h('div', { class: 'actions' }, write, stop), settings),
    h('section', { class: 'card gpt', 'aria-label': t('playground.written') },
      h('header', { class: 'cardhead' }, h('h2', {}, h('span', { class: 'swatch' }), t('playground.written')), h('span', { class: 'model' }, model.id), h('p', {}, t('playground.writtenHint'))),
      paper, facts, side)));
  running(false);
  paint();
  return () => request?.abort();
}

/** The pieces of a chunk: a token each, or the whole chunk where tokens cut a character. */
function pieces({ text, logprobs }) {
  if (!logprobs || !logprobs.token_ids.length) return [];
  const each = logprobs.token_ids.map((id, index) => ({
    ids: [id], text: logprobs.tokens[index], probability: Math.exp(logprobs.token_logprobs[index]),
    alternatives: logprobs.alternatives[index].map((one) => ({ ...one, probability: Math.exp(one.logprob) })),
  }));
  if (each.map((one) => one.text).join('') === text) return each;
  const [first] = each;
  return [{ ...first, ids: each.flatMap((one) => one.ids), text, probability: each.reduce((p, one) => p * one.probability, 1) }];
}
