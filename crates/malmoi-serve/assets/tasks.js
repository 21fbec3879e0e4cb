// Tasks: a form, a route, and its answer drawn.

import { able, post, served } from './api.js';
import { choice, field, h, put } from './dom.js';
import { percent } from './numbers.js';
import { busy, empty, failed } from './states.js';
import { t } from './texts.js';

const kept = {};

/** A task's panel: fields on the left, the answer on the right. */
function panel(task, ability, fields, ask, draw) {
  return (place) => {
    const models = able(ability);
    if (!models.length) {
      put(place, empty(t('none.task'), t(`none.${task}`), t(`none.${task}.command`)));
      return null;
    }
    const values = (kept[task] ??= { model: models[0].id, ...Object.fromEntries(fields.map(([name, value]) => [name, value])) });
    let request = null;
    const out = h('div', { class: 'answer', 'aria-live': 'polite' }, h('p', { class: 'hint' }, t('task.nothing')));
    const run = async () => {
      request?.abort();
      const own = (request = new AbortController());
      put(out, busy());
      try {
        put(out, draw(await ask(values, own.signal), values));
      } catch (error) {
        if (error.name !== 'AbortError') put(out, failed(error, run));
      }
    };
    const inputs = fields.map(([name, , rows]) => {
      const input = rows > 1 ? h('textarea', { rows, name, lang: 'ko' }) : h('input', { type: 'text', name, lang: 'ko' });
      input.value = values[name];
      input.addEventListener('input', () => (values[name] = input.value));
      return field(t(`field.${name}`), input);
    });
    put(place, h('div', { class: 'workbench' },
      h('form', { class: 'card', onsubmit: (event) => { event.preventDefault(); run(); } },
        h('p', { class: 'hint' }, t(`task.${task}.hint`)), inputs,
        models.length > 1 ? field(t('model'), choice(models.map((one) => [one.id, one.id]), values.model, (id) => (values.model = id))) : null,
        h('div', { class: 'actions' }, h('button', { type: 'submit' }, t('go')))),
      h('section', { class: 'card', 'aria-label': t('answer') }, h('header', { class: 'cardhead' }, h('h2', {}, t('answer')), h('span', { class: 'model' }, values.model)), out)));
    return () => request?.abort();
  };
}

const listed = (text) => text.split(/[\n,]/).map((one) => one.trim()).filter(Boolean);

/** Rows of a name, a bar and a number. */
const scores = (rows) => h('ol', { class: 'bars wide' }, rows.map(([name, score]) =>
  h('li', { vars: { '--p': Math.max(0, Math.min(1, score)) } }, h('span', { class: 'word' }, name), h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span', { class: 'number' }, percent(score)))));

/** A text with marked places, given in characters (code points). */
function marked(text, places, hue = () => 200) {
  const characters = [...text];
  const out = [];
  let at = 0;
  for (const place of [...places].sort((a, b) => a.start - b.start)) {
    if (place.start < at) continue;
    out.push(characters.slice(at, place.start).join(''), h('mark', { vars: { '--hue': hue(place.label) } }, characters.slice(place.start, place.end).join(''), place.label ? h('small', {}, place.label) : null));
    at = place.end;
  }
  out.push(characters.slice(at).join(''));
  return h('p', { class: 'marked' }, out);
}

/** Colours of a model's kinds of entities, as far from each other as so many can be. */
function hues(id) {
  const labels = served.models.find((model) => model.id === id)?.labels ?? [];
  const kinds = [...new Set(labels.filter((label) => label !== 'O').map((label) => label.replace(/^[BIES]-/, '')))].sort();
  return (label) => Math.round(200 + (360 * kinds.indexOf(label)) / Math.max(kinds.length, 1)) % 360;
}

export const TASKS = {
  sentiment: panel('sentiment', 'predict', [['text', '배우들의 연기가 정말 좋았다. 다시 보고 싶다.', 3]],
    ({ model, text }, signal) => post('/predict', { model, inputs: text, truncate: true }, signal),
    (answer) => scores(answer.map((one) => [one.label, one.score]))),
  ner: panel('ner', 'ner', [['text', '이순신 장군은 1592년 한산도에서 싸웠다.', 3]],
    ({ model, text }, signal) => post('/ner', { model, text }, signal),
    (answer, { text, model }) => (answer.entities.length
      ? [marked(text, answer.entities, hues(model)), scores(answer.entities.map((one) => [`${one.text} (${one.label})`, one.score]))]
      : h('p', { class: 'hint' }, t('task.noEntities')))),
  qa: panel('qa', 'qa', [['context', '말모이는 주시경과 그 제자들이 1911년부터 엮은 우리말 사전 원고이다.', 4], ['question', '말모이는 언제부터 엮었나?', 1]],
    ({ model, question, context }, signal) => post('/qa', { model, question, context, top_k: 3 }, signal),
    (answer, { context }) => [marked(context, answer.answers.slice(0, 1)), scores(answer.answers.map((one) => [one.text || t('task.noAnswer'), one.score]))]),
  similarity: panel('similarity', 'similarity', [['source', '이 영화 정말 재미있다', 1], ['sentences', '영화가 아주 재밌어요\n시간이 아까운 영화\n오늘은 비가 온다', 4]],
    async ({ model, source, sentences }, signal) => {
      const texts = listed(sentences);
      const cosines = await post(`/similarity?model=${encodeURIComponent(model)}`, { inputs: { source_sentence: source, sentences: texts } }, signal);
      return texts.map((text, index) => [text, cosines[index]]).sort((a, b) => b[1] - a[1]);
    },
    (rows) => h('ol', { class: 'bars wide' }, rows.map(([name, cosine]) =>
      h('li', { vars: { '--p': Math.max(0, cosine) } }, h('span', { class: 'word' }, name), h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span', { class: 'number' }, cosine.toFixed(3)))))),
  zeroshot: panel('zeroshot', 'zero-shot', [['text', '배우들의 연기가 돋보이는 작품이었다.', 3], ['labels', '영화, 정치, 스포츠', 1], ['template', '이 글은 {} 글이다.', 1]],
    ({ model, text, labels, template }, signal) => post('/zero-shot', { model, text, labels: listed(labels), template }, signal),
    (answer) => [scores(answer.labels.map((label, index) => [label, answer.scores[index]])), h('p', { class: 'hint' }, t(`task.method.${answer.method}`))]),
};
