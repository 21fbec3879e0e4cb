// Every text of the lab: Korean, then English. `{0}` and so on stand for values.

const STORED = 'malmoi-language';
let chosen = localStorage.getItem(STORED) || (navigator.language.startsWith('ko') ? 'ko' : 'en');

/** `ko` or `en`. */
export const language = () => chosen;

/** Changes the language for this browser. */
export function setLanguage(value) {
  chosen = value;
  localStorage.setItem(STORED, value);
}

/** A text in the chosen language. */
export function t(key, ...values) {
  const found = TEXTS[key];
  if (!found) return values.length ? String(values[0]) : key;
  return found[chosen === 'ko' ? 0 : 1].replace(/\{(\d)\}/g, (_, index) => String(values[index]));
}

const TEXTS = {
  skip: ['본문으로', 'Skip to the content'], views: ['화면', 'Views'], language: ['언어', 'Language'], theme: ['밝기', 'Theme'],
  'theme.auto': ['자동', 'Auto'], 'theme.light': ['밝게', 'Light'], 'theme.dark': ['어둡게', 'Dark'],
  'nav.attention': ['어텐션', 'Attention'], 'nav.prediction': ['예측', 'Prediction'], 'nav.playground': ['실험', 'Playground'], 'nav.machine': ['기계', 'Machine'], 'nav.training': ['학습', 'Training'], 'nav.learn': ['원리', 'Learn'],
  working: ['계산하는 중', 'Working'], connecting: ['서버에 연결하는 중', 'Connecting to the server'], again: ['다시 시도', 'Try again'], go: ['실행', 'Run'], cancel: ['취소', 'Cancel'], stop: ['멈춤', 'Stop'], stopped: ['멈췄습니다.', 'Stopped.'],
  unreachable: ['서버에 닿지 않습니다', 'The server cannot be reached'], unreachableText: ['malmoi serve가 실행 중인지 확인하세요.', 'Check that malmoi serve is running.'],
  notReady: ['모델을 읽는 중입니다', 'The models are being loaded'], tooBusy: ['서버가 바쁩니다', 'The server is busy'], refused: ['처리할 수 없습니다', 'This could not be done'],
  key: ['API 키', 'API key'], keyText: ['이 서버는 키를 요구합니다. 키는 이 탭을 닫을 때까지만 보관합니다.', 'This server asks for a key. It is kept until this tab is closed.'],
  sentence: ['문장', 'Sentence'], model: ['모델', 'Model'], answer: ['결과', 'Answer'], auto: ['자동', 'auto'], back: ['앞으로', 'Back'], on: ['다음', 'On'], look: ['보기', 'Look'], predict: ['예측', 'Predict'], layer: ['{0}층', 'Layer {0}'],
  'kind.bert': ['BERT · 인코더', 'BERT · encoder'], 'kind.gpt': ['GPT · 디코더', 'GPT · decoder'], 'kind.t5': ['T5 · 인코더와 디코더', 'T5 · encoder and decoder'],
  'none.encoder': ['인코더(BERT)가 없습니다', 'No encoder (BERT) is served'], 'none.decoder': ['디코더(GPT)가 없습니다', 'No decoder (GPT) is served'], 'none.text': ['모델 폴더를 더해 다시 시작하세요.', 'Start again with a model directory.'], 'none.task': ['이 작업을 하는 모델이 없습니다', 'No served model can do this'],
  drawing: ['그림', 'Drawing'],

  'attention.title': ['누가 누구를 보는가', 'Who looks at whom'],
  'attention.lead': ['같은 문장을 BERT는 양쪽 모두, GPT는 왼쪽만 보고 읽습니다.', 'One sentence, read twice: BERT looks both ways, GPT only to the left.'],
  'attention.map': ['지도', 'Map'], 'attention.lines': ['선', 'Lines'], 'attention.hint': ['단어를 가리키거나 ← →로 옮기세요.', 'Point at a word, or move with ← →.'],
  'attention.bert': ['모든 단어가 모든 단어를 봅니다.', 'Every word sees every word.'], 'attention.gpt': ['빗금 친 곳, 오른쪽은 보지 못합니다.', 'What is hatched, to the right, it cannot see.'],
  'attention.t5': ['인코더는 양쪽을 보고 읽고, 디코더는 왼쪽과 읽은 글을 보며 씁니다.', 'The encoder reads both ways; the decoder looks to the left, and at what was read.'],
  'attention.target': ['디코더가 쓰는 글', 'What the decoder writes'], 'attention.part': ['어텐션', 'Attention'], 'attention.cross': ['교차', 'Cross'], 'attention.read': ['인코더', 'Encoder'], 'attention.write': ['디코더', 'Decoder'],
  'attention.cross.hint': ['쓰는 토큰이 읽은 문장의 어디를 보는지', 'Where in the sentence a written token looks'], 'attention.read.hint': ['읽는 문장 안에서', 'Within the sentence that is read'], 'attention.write.hint': ['쓰는 글 안에서, 왼쪽만', 'Within the text that is written, to the left only'], 'attention.readWords': ['읽은 문장', 'The sentence read'],
  'attention.words': ['문장의 토큰', 'Tokens of the sentence'], 'attention.unseen': ['볼 수 없음', 'not visible'], 'attention.caption': ['{0}층 {1}번 헤드', 'Layer {0}, head {1}'], 'attention.heads': ['모든 층과 헤드', 'All layers and heads'],
  'attention.leftOnly': ['왼쪽 {0}개만 보고', 'sees the {0} up to itself and looks at'], 'attention.bothSides': ['{0}개를 모두 보고', 'sees all {0} and looks at'],
  'attention.mapLabel': ['어텐션 확률: 줄이 보는 쪽, 칸이 보이는 쪽', 'Attention probabilities: rows look at columns'], 'attention.linesLabel': ['어텐션 확률: 왼쪽이 오른쪽을 봄', 'Attention probabilities: left looks at right'], 'attention.cut': ['처음 {0}개 토큰만 그렸습니다.', 'Only the first {0} tokens are drawn.'],

  'prediction.title': ['다음 말과 빈칸', 'The next word and the blank'],
  'prediction.lead': ['GPT는 앞만 보고 다음 말을, BERT는 앞뒤를 보고 가려진 말을 맞힙니다.', 'GPT guesses what comes next; BERT guesses what is hidden.'],
  'prediction.gpt': ['토큰을 고르면 그 뒤에 올 말의 확률을 봅니다.', 'Choose a token to see what the model expects behind it.'], 'prediction.bert': ['단어를 누르면 가려집니다.', 'Click a word to hide it.'],
  'prediction.places': ['토큰과 그 확률', 'Tokens and their probabilities'], 'prediction.words': ['가릴 단어', 'Words to hide'], 'prediction.step': ['{0} / {1}', '{0} / {1}'], 'prediction.candidates': ['후보', 'Candidates'],
  'prediction.actual': ['실제로 온 말', 'What really follows:'], 'prediction.rank': ['{0}위', 'rank {0}'], 'prediction.end': ['문장의 끝입니다. 다음 말은 모델의 상상입니다.', 'The end of the sentence: what follows is the model’s own.'], 'prediction.blank': ['가려진 말', 'Hidden:'],

  'playground.title': ['써 보고 시켜 보기', 'Write, and set tasks'], 'playground.lead': ['생성된 토큰마다 확률을 보고, 다른 말로 갈아타고, 과제를 풀게 합니다.', 'See the probability of every written token, branch to another, and try tasks.'],
  'playground.what': ['과제', 'Task'], 'playground.prompt': ['시작하는 글', 'Prompt'], 'playground.settings': ['표본 추출', 'Sampling'], 'playground.written': ['쓴 글', 'Written'], 'playground.writtenHint': ['옅을수록 확률이 낮은 선택입니다.', 'The fainter, the less probable the choice.'],
  'playground.nothing': ['아직 쓴 글이 없습니다. 시작하는 글을 넣고 쓰기를 누르세요.', 'Nothing written yet. Enter a prompt and press Write.'], 'playground.pick': ['토큰을 누르면 다른 후보가 나옵니다.', 'Click a token to see what else it could have been.'], 'playground.branch': ['후보를 누르면 거기서부터 다시 씁니다.', 'Click one to go on from there.'],
  'playground.facts': ['토큰 {0}개 · 초당 {1}개 · 첫 토큰 {2} ms · {3}', '{0} tokens · {1} a second · first after {2} ms · {3}'], write: ['쓰기', 'Write'],
  'set.temperature': ['온도', 'Temperature'], 'set.temperature.hint': ['0이면 늘 가장 확률이 높은 말', '0: always the most probable'], 'set.top_k': ['top-k', 'Top-k'], 'set.top_k.hint': ['후보의 수, 0이면 모두', 'Candidates kept; 0: all'], 'set.top_p': ['top-p', 'Top-p'], 'set.top_p.hint': ['후보의 확률 합', 'Probability mass kept'],
  'set.repetition_penalty': ['반복 벌점', 'Repetition penalty'], 'set.repetition_penalty.hint': ['1이면 없음', '1: none'], 'set.max_tokens': ['길이', 'Length'], 'set.max_tokens.hint': ['토큰의 수', 'Tokens at most'], 'set.seed': ['씨앗', 'Seed'], 'set.seed.hint': ['같은 씨앗은 같은 글', 'Same seed, same text'],

  'task.generate': ['생성', 'Generate'], 'task.sentiment': ['감성', 'Sentiment'], 'task.ner': ['개체명', 'Entities'], 'task.qa': ['질의응답', 'Questions'], 'task.similarity': ['유사도', 'Similarity'], 'task.zeroshot': ['제로샷', 'Zero-shot'],
  'task.nothing': ['실행을 누르면 결과가 여기 나옵니다.', 'Press Run; the answer appears here.'], 'task.noEntities': ['개체명이 없습니다.', 'No entities found.'], 'task.noAnswer': ['(답 없음)', '(no answer)'],
  'task.sentiment.hint': ['글이 어느 부류인지 분류 모델에 묻습니다.', 'Asks a classifier which class a text belongs to.'], 'task.ner.hint': ['글에서 사람, 곳, 때 같은 이름을 찾습니다.', 'Marks the people, places and times in a text.'], 'task.qa.hint': ['글에서 답이 되는 부분을 찾습니다.', 'Finds the part of a text that answers a question.'], 'task.similarity.hint': ['문장 벡터의 코사인입니다.', 'Cosine of sentence vectors.'], 'task.zeroshot.hint': ['가르친 적 없는 이름표를 견줍니다.', 'Compares labels that nobody trained.'],
  'task.method.entailment': ['함의 분류기로 견줬습니다.', 'Compared by an entailment classifier.'], 'task.method.likelihood': ['디코더의 가능도로 견줬습니다.', 'Compared by a decoder’s likelihood.'],
  'none.sentiment': ['분류 모델을 만들어 함께 띄우세요.', 'Train a classifier and serve it too.'], 'none.sentiment.command': ['malmoi finetune classify … --out sentiment && malmoi serve --model sentiment', 'malmoi finetune classify … --out sentiment && malmoi serve --model sentiment'],
  'none.ner': ['토큰 분류 헤드가 있는 모델을 함께 띄우세요.', 'Serve a model with a token-classification head too.'], 'none.ner.command': ['malmoi serve --model ner=DIR', 'malmoi serve --model ner=DIR'], 'none.qa': ['질의응답 헤드가 있는 모델을 함께 띄우세요.', 'Serve a model with a question-answering head too.'], 'none.qa.command': ['malmoi serve --model qa=DIR', 'malmoi serve --model qa=DIR'],
  'none.similarity': ['모델을 함께 띄우세요.', 'Serve a model too.'], 'none.similarity.command': ['malmoi serve --model DIR', 'malmoi serve --model DIR'], 'none.zeroshot': ['디코더나 함의 분류기를 함께 띄우세요.', 'Serve a decoder or an entailment classifier too.'], 'none.zeroshot.command': ['malmoi serve --model gpt=DIR', 'malmoi serve --model gpt=DIR'],
  'field.text': ['글', 'Text'], 'field.context': ['지문', 'Passage'], 'field.question': ['질문', 'Question'], 'field.source': ['기준 문장', 'Sentence'], 'field.sentences': ['견줄 문장, 한 줄에 하나', 'Sentences to compare, one a line'], 'field.labels': ['이름표, 쉼표로 구분', 'Labels, separated by commas'], 'field.template': ['틀', 'Template'],

  'machine.title': ['기계의 한계', 'The limit of the machine'], 'machine.lead': ['이 기계가 낼 수 있는 속도와, 모델의 각 부분이 그 아래 어디에 놓이는지 봅니다.', 'How fast this machine can be, and where each part of a model lies beneath that.'],
  'machine.measuring': ['기계를 재는 중 (몇 초)', 'Measuring the machine (a few seconds)'], 'machine.processor': ['처리 장치', 'Processor'], 'machine.threads': ['스레드 {0}개 · {1}', '{0} threads · {1}'], 'machine.bandwidth': ['대역폭', 'Bandwidth'], 'machine.memory': ['메모리', 'Memory'], 'machine.available': ['{0} 사용 가능', '{0} available'],
  'machine.roofline': ['루프라인', 'Roofline'], 'machine.rooflineHint': ['점은 연산, 크기는 걸리는 시간입니다. 꺾인 선 위로는 갈 수 없습니다.', 'A dot is an operation, its size the time it takes. Nothing gets above the bent line.'], 'machine.phase': ['일', 'Work'], 'machine.batch': ['묶음', 'Batch'], 'machine.tokens': ['토큰', 'Tokens'],
  'phase.encode': ['인코딩', 'Encode'], 'phase.train': ['학습', 'Train'], 'phase.prefill': ['프롬프트 읽기', 'Prefill'], 'phase.decode': ['생성', 'Decode'],
  'machine.predicted': ['예상 시간', 'Predicted'], 'machine.boundBy': ['한계:', 'bound by'], 'machine.intensity': ['연산 강도 (FLOP/B)', 'intensity (FLOP/B)'], 'machine.ops': ['연산별 비용', 'Cost of each operation'],
  'col.op': ['연산', 'Operation'], 'col.times': ['번', 'Times'], 'col.flops': ['FLOP', 'FLOP'], 'col.bytes': ['바이트', 'Bytes'], 'col.intensity': ['FLOP/B', 'FLOP/B'], 'col.time': ['시간', 'Time'], 'col.share': ['몫', 'Share'], 'col.bound': ['한계', 'Bound'],
  'bound.compute': ['연산', 'arithmetic'], 'bound.memory': ['메모리', 'memory'],
  'mem.allocator': ['할당 여유', 'Allocator'], 'mem.weights': ['가중치', 'Weights'], 'mem.vocabulary': ['로짓', 'Logits'], 'mem.packed_weights': ['계산용으로 옮긴 가중치', 'Packed weights'], 'mem.activations': ['활성값', 'Activations'], 'mem.cache': ['키·값 캐시', 'Key/value cache'], 'mem.gradients': ['기울기', 'Gradients'], 'mem.moments': ['모멘트', 'Moments'], 'mem.master_weights': ['f32 가중치', 'f32 weights'],
  'machine.live': ['지금', 'Now'], 'machine.liveHint': ['2초마다 새로 읽습니다.', 'Read anew every two seconds.'], 'machine.tokensPerSecond': ['초당 토큰', 'Tokens a second'], 'machine.read': ['읽음', 'read'], 'machine.wrote': ['씀', 'written'], 'machine.uptime': ['켜진 뒤 초', 'seconds up'], 'machine.requests': ['요청', 'Requests'], 'machine.rejected': ['거절 {0}', '{0} refused'], 'machine.inFlight': ['진행 중', 'In flight'], 'machine.queued': ['대기 {0}', '{0} waiting'], 'machine.resident': ['상주 메모리', 'Resident memory'], 'machine.cache': ['키·값 캐시', 'Key/value cache'], 'machine.of': ['한도 {0}', 'of {0}'],

  'training.title': ['학습 곡선', 'Training curves'], 'training.lead': ['실행 폴더를 읽어, 학습이 진행되는 대로 그립니다.', 'Run directories, drawn as training goes on.'], 'training.runs': ['실행', 'Runs'], 'training.none': ['볼 실행이 없습니다', 'No runs to show'], 'training.noneText': ['실행 폴더나 그 상위 폴더를 넘기면 곡선이 나옵니다.', 'Name a run directory, or a folder of them, and its curves appear.'], 'training.active': ['진행 중', 'running'], 'training.step': ['{0}단계', 'step {0}'], 'training.steps': ['단계', 'step'],
  'training.train': ['학습', 'train'], 'training.valid': ['검증', 'valid'], 'training.loss': ['손실', 'Loss'], 'training.accuracy': ['정확도', 'Accuracy'], 'training.lr': ['학습률', 'Learning rate'], 'training.gradNorm': ['기울기 크기', 'Gradient norm'], 'training.speed': ['초당 토큰', 'Tokens a second'], 'training.samples': ['표본', 'Samples'], 'training.noSamples': ['이 실행은 표본을 남기지 않았습니다.', 'This run recorded no samples.'], 'training.config': ['설정', 'Configuration'], 'training.noRows': ['아직 기록이 없습니다', 'Nothing recorded yet'], 'training.noRowsText': ['첫 단계가 끝나면 곡선이 시작됩니다.', 'The curves start with the first step.'],

  'learn.title': ['한 문장, 한 걸음', 'One sentence, one step'], 'learn.lead': ['한 번 학습하면 맞는 말의 확률이 얼마나 오르는지 봅니다. 띄운 모델은 그대로입니다.', 'What one training step does to the probability of the right word. The served model stays as it is.'],
  'learn.rate': ['학습률', 'Step size'], 'learn.start': ['학습', 'Train'], 'learn.before': ['처음', 'Before'], 'learn.now': ['지금', 'Now'], 'learn.once': ['한 번 더', 'One more step'], 'learn.play': ['재생', 'Play'], 'learn.pause': ['잠시 멈춤', 'Pause'], 'learn.step': ['학습한 횟수', 'Steps trained'], 'learn.after': ['{0}번 학습', 'step {0}'], 'learn.training': ['학습하는 중', 'Training'], 'learn.bert': ['빈칸에 맞는 말의 확률. 다른 단어를 눌러 가릴 수 있습니다.', 'The right word at the blank. Click another word to hide it.'], 'learn.gpt': ['자리마다, 실제로 온 다음 말의 확률.', 'At each position, the word that really comes next.'],
  'learn.loss': ['손실', 'Loss'], 'learn.target': ['맞는 말', 'Right word'], 'learn.probability': ['확률', 'Probability'], 'learn.guesses': ['지금의 후보:', 'Its guesses now:'], 'learn.stepAxis': ['횟수', 'step'],
  'blocks.title': ['모델의 얼개', 'How the models are built'], 'blocks.lead': ['상자를 누르면 그 계산과 모양이 나옵니다.', 'Click a box for what it computes, with shapes.'], 'blocks.bert': ['BERT', 'BERT'], 'blocks.t5': ['T5', 'T5'], 'blocks.gpt': ['GPT', 'GPT'], 'blocks.encoder': ['인코더', 'Encoder'], 'blocks.decoder': ['디코더', 'Decoder'],
  'blocks.bert.text': ['인코더만 남겨, 양쪽을 보고 빈칸을 맞힙니다.', 'Keeps the encoder: sees both sides, fills the blank.'], 'blocks.t5.text': ['인코더가 읽고, 디코더가 그것을 보며 씁니다.', 'The encoder reads; the decoder looks at it and writes.'], 'blocks.gpt.text': ['디코더만 남기고, 볼 인코더가 없으니 교차 어텐션을 버립니다.', 'Keeps the decoder; with no encoder to look at, cross attention goes.'],
  'blocks.times': ['× 층', '× layers'], 'blocks.dropped': ['GPT에는 없음', 'dropped'], 'blocks.see': ['{0} 화면에서 보기', 'See it in {0}'], 'blocks.shapesOf': ['{0}의 모양 ({1}층)', 'Shapes in {0} ({1} layers)'], 'blocks.shapes': ['모양', 'Shapes'], 'shape.out': ['결과', 'out'], 'shape.blanks': ['빈칸', 'blanks'],
  'box.embed': ['임베딩', 'Embedding'], 'box.embed.text': ['토큰 번호를 벡터로 바꾸고 자리를 더합니다.', 'Turns token ids into vectors and adds where they stand.'], 'box.self': ['셀프 어텐션', 'Self attention'], 'box.self.text': ['모든 토큰이 앞뒤의 모든 토큰을 보고 섞습니다.', 'Every token mixes in what it sees on both sides.'], 'box.causal': ['가린 셀프 어텐션', 'Masked self attention'], 'box.causal.text': ['오른쪽을 −∞로 가려, 아직 쓰지 않은 말을 미리 볼 수 없게 합니다.', 'Sets the right side to −∞, so that nothing unwritten can be seen.'], 'box.cross': ['교차 어텐션', 'Cross attention'], 'box.cross.text': ['쓰는 쪽이 읽은 글을 봅니다. 인코더가 없는 GPT는 이 상자를 버립니다.', 'The writer looks at what was read. GPT has no encoder, so it drops this box.'],
  'box.add': ['더하고 정규화', 'Add & norm'], 'box.add.text': ['들어온 값에 결과를 더하고 크기를 고릅니다. BERT는 더한 뒤, GPT-2와 T5는 들어가기 전에 정규화합니다.', 'Adds the result to what came in. BERT normalises after adding; GPT-2 and T5 before each part.'], 'box.add2': ['더하고 정규화', 'Add & norm'], 'box.add2.text': ['피드포워드의 결과도 들어온 값에 더합니다.', 'The feed-forward’s result is added to what came in as well.'], 'box.ffn': ['피드포워드', 'Feed forward'], 'box.ffn.text': ['토큰마다 따로, 넓게 폈다가 다시 줄입니다. 계산의 대부분입니다.', 'Widens and narrows each token by itself: most of the arithmetic. T5 v1.0 uses ReLU without biases.'], 'box.mlm': ['빈칸의 말', 'Word at the blank'], 'box.mlm.text': ['가려진 자리의 벡터를 어휘 전체와 견줍니다.', 'Compares the vector at each blank with the whole vocabulary.'], 'box.next': ['다음 말', 'Next word'], 'box.next.text': ['자리마다 다음 말의 확률을 냅니다.', 'Gives the probabilities of the next word at each position.'],
};
