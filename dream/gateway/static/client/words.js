// Every text of the page and the elements, in English and Chinese. `{n}` is filled in; `one|many` is chosen by `{n}`.

export const words = {
  en: {
    "state.pending": "waiting",
    "state.processing": "processing",
    "state.completed": "ready",
    "state.failed": "failed",
    retry: "trying again in {s}, {n} of {max}",
    "retry.now": "trying again, {n} of {max}",
    pictures: "{n} picture|{n} pictures",
    files: "{n} file|{n} files",
    "error.connection": "the connection was lost",
    "error.status": "the server answered {status}",
  },
  zh: {
    "state.pending": "等待中",
    "state.processing": "处理中",
    "state.completed": "已完成",
    "state.failed": "失败",
    retry: "{s}后重试，第 {n} 次，共 {max} 次",
    "retry.now": "正在重试，第 {n} 次，共 {max} 次",
    pictures: "{n} 张图片",
    files: "{n} 个文件",
    "error.connection": "连接已断开",
    "error.status": "服务器返回 {status}",
  },
};

/** The first language of the browser that has texts. */
export const language = navigator.languages.map((each) => each.slice(0, 2).toLowerCase()).find((each) => each in words) ?? "en";

const plural = new Intl.PluralRules(language);

/** The text of a key, with values: `say("pictures", { n: 3 })`. */
export function say(key, values = {}) {
  const texts = words[language][key].split("|");
  const text = texts.length > 1 && plural.select(values.n) !== "one" ? texts[1] : texts[0];
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A number of bytes: `840 kB`, `3.2 MB`. */
export function sizeText(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}

/** A number of seconds: `45 s`, `3 min`. */
export function timeText(seconds) {
  const [value, unit] = seconds < 100 ? [Math.max(1, Math.round(seconds)), "second"] : [Math.round(seconds / 60), "minute"];
  return new Intl.NumberFormat(language, { style: "unit", unit, unitDisplay: "short" }).format(value);
}

/** The server's sentences begin in lower case. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The state of a picture that is not ready, in words: `trying again in 60 s, 2 of 5`. */
export function stateText(picture) {
  const { retry, state } = picture;
  if (state === "completed" || state === "failed") return say(`state.${state}`);
  if (!retry) return say(picture.step === "processing" || picture.step === "stored" ? "state.processing" : `state.${state}`);
  const seconds = retry.retry_at - Date.now() / 1000;
  return say(seconds > 0 ? "retry" : "retry.now", { n: retry.attempt, max: retry.max_retries, s: timeText(seconds) });
}
