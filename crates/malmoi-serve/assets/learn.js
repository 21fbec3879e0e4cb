// Learn: one sentence, one training step, again; and the parts of each model.

import { able, events } from './api.js';
import { lineChart } from './charts.js';
import { choice, field, h, put, shown } from './dom.js';
import { diagrams } from './diagrams.js';
import { percent, plain } from './numbers.js';
import { busy, empty, failed } from './states.js';
import { t } from './texts.js';

/** Steps that are asked for at once; the page shows them one by one. */
const STEPS = 16;
const state = { text: '어제 카페 갔었어 거기 사람 많더라', rate: 0.0005, models: {}, at: 1 };
const RATES = [[0.0001, '0.0001'], [0.0005, '0.0005'], [0.001, '0.001'], [0.005, '0.005']];

export function render(body) {
  const lessons = [lesson('encoder'), lesson('decoder')];
  const input = h('input', { type: 'text', value: state.text, maxlength: 200, lang: 'ko', 'aria-label': t('sentence'), id: 'sentence' });
  let timer = null;
  const play = h('button', { type: 'button', class: 'quiet', id: 'play', onclick: () => (timer ? pause() : run()) }, t('learn.play'));
  const slider = h('input', { type: 'range', min: 0, max: STEPS, step: 1, 'aria-label': t('learn.step') });
  const counter = h('b', { class: 'number', id: 'step' });
  const go = (at) => {
    state.at = Math.max(0, Math.min(STEPS, at));
    slider.value = state.at;
    counter.textContent = t('learn.after', state.at);
    lessons.forEach((one) => one.draw());
    if (state.at === STEPS) pause();
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = t('learn.play');
  };
  const run = () => {
    if (state.at === STEPS) go(0);
    play.textContent = t('learn.pause');
    timer = setInterval(() => go(state.at + 1), 700);
  };
  slider.addEventListener('input', () => go(Number(slider.value)));
  const load = () => {
    state.text = input.value.trim() || state.text;
    lessons.forEach((one) => one.load());
    go(1);
  };
  put(body,
    h('form', { class: 'ask', onsubmit: (event) => { event.preventDefault(); pause(); load(); } }, input,
      field(t('learn.rate'), choice(RATES, state.rate, (value) => { state.rate = Number(value); pause(); load(); })),
      h('button', { type: 'submit' }, t('learn.start'))),
    h('div', { class: 'stepper wide' },
      h('button', { type: 'button', class: 'quiet', onclick: () => { pause(); go(0); } }, t('learn.before')), slider, counter,
      h('button', { type: 'button', id: 'once', onclick: () => { pause(); go(state.at + 1); } }, t('learn.once')), play),
    h('div', { class: 'pair' }, lessons.map((one) => one.node)),
    diagrams());
  load();
  return () => {
    pause();
    lessons.forEach((one) => one.leave());
  };
}

function lesson(direction) {
  const kind = direction === 'encoder' ? 'bert' : 'gpt';
  const models = able('learn', direction);
  let model = models.find((one) => one.id === state.models[direction]) || models[0];
  let request = null;
  let head = null;
  let steps = [];
  let mask = [];
  const place = h('div', { class: 'inside' });
  const picker = models.length > 1
    ? choice(models.map((one) => [one.id, one.id]), model.id, (id) => { model = models.find((one) => one.id === id); state.models[direction] = id; mask = []; load(); })
    : model ? h('span', { class: 'model' }, model.id) : null;
  const node = h('section', { class: `card ${kind}`, 'aria-label': t(`kind.${kind}`), 'data-direction': direction },
    h('header', { class: 'cardhead' }, h('h2', {}, h('span', { class: 'swatch' }), t(`kind.${kind}`)), picker, h('p', {}, t(`learn.${kind}`))), place);
  if (!model) put(place, empty(t(`none.${direction}`), t('none.text'), `malmoi serve --model ${kind}=DIR`));

  async function load() {
    if (!model) return;
    request?.abort();
    const own = (request = new AbortController());
    [head, steps] = [null, []];
    put(place, busy(t('learn.training')));
    try {
      const body = { model: model.id, text: state.text, steps: STEPS, learning_rate: state.rate, top_k: 3 };
      if (mask.length) body.mask = mask;
      for await (const event of events('/lab/learn', body, own.signal)) {
        if (event.tokens) head = event;
        else steps.push(event);
        if (steps.length === state.at + 1 || steps.length === STEPS + 1) draw();
      }
    } catch (error) {
      if (error.name !== 'AbortError') put(place, failed(error, () => { mask = []; load(); }));
    }
  }

  function draw() {
    if (!head || !steps.length) return;
    const [before] = steps;
    const after = steps[Math.min(state.at, steps.length - 1)];
    const waiting = state.at > steps.length - 1;
    put(place,
      direction === 'encoder' ? words() : null,
      h('p', { class: 'readout' }, t('learn.loss'), ' ', h('b', { class: 'number' }, plain(before.loss)), ' → ', h('b', { class: 'number', 'data-loss': after.loss }, plain(after.loss)), waiting ? ` · ${t('working')}` : null),
      h('table', { class: 'lesson' },
        h('caption', { class: 'visually' }, t(`learn.${kind}`)),
        h('thead', {}, h('tr', {}, h('th', {}, t('learn.target')), h('th', {}, t('learn.probability')), h('th', { class: 'number' }, t('learn.before')), h('th', { class: 'number' }, t('learn.now')))),
        h('tbody', {}, after.positions.map((position, index) => {
          const old = before.positions[index].target.probability;
          const p = position.target.probability;
          return h('tr', { 'data-position': position.position },
            h('th', { scope: 'row' }, direction === 'decoder' ? h('small', {}, `${shown(head.tokens[position.position - 1].text.trim())} →`) : null, shown(position.target.text.trim())),
            h('td', {}, h('span', { class: 'change', 'aria-hidden': 'true', vars: { '--old': old, '--new': p } })),
            h('td', { class: 'number' }, percent(old)), h('td', { class: 'number strong' }, percent(p)));
        }))),
      direction === 'encoder' ? guesses(after) : null,
      lineChart({ title: t('learn.loss'), height: 110, xName: t('learn.stepAxis'), label: '', curves: [{ name: t('learn.loss'), color: `var(--${kind})`, x: steps.slice(0, state.at + 1).map((one) => one.step), y: steps.slice(0, state.at + 1).map((one) => one.loss), dots: true }] }));
  }

  const words = () => h('div', { class: 'tokens', role: 'group', 'aria-label': t('prediction.words') }, head.tokens.map((token, index) =>
    h('button', { type: 'button', class: `token${head.mask.includes(index) ? ' blank' : ''}`, disabled: token.special, 'aria-pressed': String(head.mask.includes(index)), onclick: () => { mask = [index]; load(); } },
      head.mask.includes(index) ? '[MASK]' : shown(token.text))));

  const guesses = (after) => h('p', { class: 'hint' }, t('learn.guesses'), ' ', after.positions.map((position) =>
    h('span', { class: 'list' }, position.candidates.map((one) => h('span', {}, shown(one.text), ' ', h('b', {}, percent(one.probability)))))));

  return { node, load, draw, leave: () => request?.abort() };
}
