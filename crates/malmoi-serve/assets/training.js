// Training: curves of run directories, as they grow.

import { get } from './api.js';
import { lineChart } from './charts.js';
import { h, put } from './dom.js';
import { percent, plain, si } from './numbers.js';
import { busy, empty, failed } from './states.js';
import { language, t } from './texts.js';

const state = { run: null };

export function render(body) {
  const list = h('nav', { class: 'runs', 'aria-label': t('training.runs') });
  const place = h('div', {});
  const limit = new AbortController();
  let timer = null;
  let shownStep = null;

  async function refresh(first) {
    clearTimeout(timer);
    try {
      const { runs } = await get('/lab/runs', limit.signal);
      if (!runs.length) {
        put(list);
        put(place, empty(t('training.none'), t('training.noneText'), 'malmoi serve --model DIR --runs runs/'));
      } else {
        const run = runs.find((one) => one.name === state.run) || runs[0];
        state.run = run.name;
        put(list, runs.map((one) => h('button', { type: 'button', class: 'run', 'aria-pressed': String(one === run), onclick: () => { state.run = one.name; shownStep = null; put(place, busy()); refresh(); } },
          h('b', {}, one.name), h('span', { class: one.active ? 'active' : null }, one.active ? t('training.active') : when(one.updated)), h('span', { class: 'number' }, t('training.step', one.step)))));
        // Drawn again only where something came in, so that a pointer on a curve is not disturbed.
        if (`${run.name} ${run.step}` !== shownStep) {
          const details = await get(`/lab/runs/${encodeURIComponent(run.name)}?points=600`, limit.signal);
          if (state.run === run.name) put(place, curves(details));
          shownStep = `${run.name} ${run.step}`;
        }
        timer = setTimeout(refresh, run.active ? 2000 : 6000);
      }
    } catch (error) {
      if (error.name !== 'AbortError') put(place, failed(error, () => refresh(first)));
    }
  }
  put(place, busy());
  put(body, h('div', { class: 'split' }, list, place));
  refresh(true);
  return () => {
    clearTimeout(timer);
    limit.abort();
  };
}

const when = (unix) => new Date(unix * 1000).toLocaleString(language(), { dateStyle: 'medium', timeStyle: 'short' });

function curves({ train, valid, samples, config }) {
  const step = t('training.steps');
  const chart = (title, name, color, format = plain, axis = plain) =>
    train[name] ? lineChart({ title, xName: step, format, axis, label: '', curves: [{ name, color, x: train.step, y: train[name] }] }) : null;
  const loss = [];
  if (train.loss) loss.push({ name: t('training.train'), color: 'var(--bert)', x: train.step, y: train.loss });
  if (valid.loss) loss.push({ name: t('training.valid'), color: 'var(--gpt)', x: valid.step, y: valid.loss, dots: true });
  const accuracy = [];
  if (train.accuracy) accuracy.push({ name: t('training.train'), color: 'var(--bert)', x: train.step, y: train.accuracy });
  if (valid.accuracy) accuracy.push({ name: t('training.valid'), color: 'var(--gpt)', x: valid.step, y: valid.accuracy, dots: true });
  return [
    loss.length ? h('div', { class: 'card' }, lineChart({ title: t('training.loss'), curves: loss, xName: step, height: 260, label: '' })) : h('div', { class: 'card' }, empty(t('training.noRows'), t('training.noRowsText'))),
    h('div', { class: 'quad' },
      [accuracy.length ? lineChart({ title: t('training.accuracy'), curves: accuracy, xName: step, format: percent, label: '' }) : null,
        chart(t('training.lr'), 'lr', 'var(--ink)'), chart(t('training.gradNorm'), 'grad_norm', 'var(--ink)'), chart(t('training.speed'), 'tokens_per_second', 'var(--ink)', (value) => si(value))]
        .filter(Boolean).map((one) => h('div', { class: 'card' }, one))),
    h('section', { class: 'card' }, h('h3', {}, t('training.samples')), samples.length
      ? h('ol', { class: 'samples' }, [...samples].reverse().slice(0, 20).map((one) => h('li', {}, h('span', { class: 'number' }, t('training.step', one.step)), h('p', {}, one.text))))
      : h('p', { class: 'hint' }, t('training.noSamples'))),
    config ? h('details', { class: 'card' }, h('summary', {}, t('training.config')), h('pre', {}, config)) : null,
  ];
}
