// The server's HTTP interface. Only this origin is ever asked.

import { askKey } from './states.js';

/** A refusal: the server's own words, and its status (0 when it could not be reached). */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const KEY = 'malmoi-key';

async function send(path, body, signal, again = true) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, { method: body === undefined ? 'GET' : 'POST', headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal('', 0);
  }
  if (response.ok) return response;
  if (response.status === 401 && again) {
    const given = await askKey();
    if (given) {
      sessionStorage.setItem(KEY, given);
      return send(path, body, signal, false);
    }
  }
  const text = await response.text();
  throw new Refusal(messageIn(text) || `HTTP ${response.status}`, response.status);
}

function messageIn(text) {
  try {
    const { error } = JSON.parse(text);
    return typeof error === 'string' ? error : error?.message;
  } catch {
    return text.slice(0, 300);
  }
}

/** Asks a route and reads its JSON. */
export const get = async (path, signal) => (await send(path, undefined, signal)).json();

/** Sends JSON and reads JSON. */
export const post = async (path, body, signal) => (await send(path, body, signal)).json();

/** Sends JSON and yields the objects of a stream of server-sent events up to `[DONE]`. */
export async function* events(path, body, signal) {
  const response = await send(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Refusal('', 0);
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trim()).join('\n');
      if (!data) continue;
      if (data === '[DONE]') return;
      const object = JSON.parse(data);
      if (object.error) throw new Refusal(messageIn(data), 500);
      yield object;
    }
  }
}

/** The served models, once asked. */
export const served = { models: [] };

/** Asks which models are served. */
export async function loadModels() {
  served.models = (await get('/lab/models')).models;
}

/** The served models that can do a task. */
export const able = (task, direction) =>
  served.models.filter((model) => model.tasks.includes(task) && (!direction || model.direction === direction));
