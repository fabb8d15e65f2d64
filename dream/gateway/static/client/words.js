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
    again: "Try again",
    dismiss: "Dismiss",
    "upload.title": "Drop your pictures here",
    "upload.choose": "Add pictures",
    "upload.camera": "Take a photo",
    "upload.drop": "or drop or paste them anywhere",
    "upload.formats": "{kinds}, up to {size} each",
    "upload.over": "Drop to add",
    "upload.folder": "this is a folder; drop the pictures in it",
    "upload.unsent": "not sent when the page was closed; add them again",
    "upload.queue": "Sending",
    "upload.batches": "Progress",
    "upload.files": "Files",
    "upload.more": "and {n} more",
    "upload.begun": "Sending {n} picture|Sending {n} pictures",
    "upload.sending": "Sending · {n} of {all} · {done} of {size}",
    "upload.processing": "Processing · {n} of {all} ready",
    "upload.done": "{n} picture added|{n} pictures added",
    "upload.some": "{n} added, {failed} failed",
    "upload.pause": "{error}; trying again in {s}",
    "upload.cancel": "Do not send {name}",
    "upload.again": "Send {name} again",
    "upload.dismiss": "Dismiss {name}",
    "page.enter": "Open a dream",
    "page.hint": "A dream holds the pictures of one album, post or diary entry. Your application gives you a token for it.",
    "page.dream": "Dream number",
    "page.token": "Token",
    "page.connect": "Open",
    "page.name": "No. {dream}",
    "page.out": "Sign out",
    "page.off": "Not connected",
    "page.connecting": "Connecting…",
    "page.live": "Live",
    "page.lost": "Connection lost, trying again…",
    "page.offline": "You are offline",
    "page.refused": "the token was not accepted",
    "page.problem": "The pictures could not be read: {error}",
    "page.unsent": "{n} file is not sent yet. Sign out?|{n} files are not sent yet. Sign out?",
    "page.left": "You are signed out.",
    "page.forgotten": "The page has forgotten your token. It stays valid until it expires.",
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
    again: "重试",
    dismiss: "关闭",
    "upload.title": "把图片拖到这里",
    "upload.choose": "添加图片",
    "upload.camera": "拍照",
    "upload.drop": "也可以拖放或粘贴到页面任意位置",
    "upload.formats": "{kinds}，每个不超过 {size}",
    "upload.over": "松开即可添加",
    "upload.folder": "这是文件夹，请拖放其中的图片",
    "upload.unsent": "页面关闭时尚未发送，请重新添加",
    "upload.queue": "发送",
    "upload.batches": "进度",
    "upload.files": "文件",
    "upload.more": "还有 {n} 个",
    "upload.begun": "正在发送 {n} 张图片",
    "upload.sending": "发送中 · 第 {n} 张，共 {all} 张 · {done}，共 {size}",
    "upload.processing": "处理中 · 已完成 {n} 张，共 {all} 张",
    "upload.done": "已添加 {n} 张图片",
    "upload.some": "已添加 {n} 张，失败 {failed} 张",
    "upload.pause": "{error}，{s}后重试",
    "upload.cancel": "取消发送 {name}",
    "upload.again": "重新发送 {name}",
    "upload.dismiss": "关闭 {name}",
    "page.enter": "打开一个梦境",
    "page.hint": "一个梦境包含一个相册、一篇文章或日记的图片。令牌由您的应用提供。",
    "page.dream": "梦境编号",
    "page.token": "令牌",
    "page.connect": "打开",
    "page.name": "第 {dream} 号",
    "page.out": "退出",
    "page.off": "未连接",
    "page.connecting": "正在连接…",
    "page.live": "实时",
    "page.lost": "连接已断开，正在重试…",
    "page.offline": "您已离线",
    "page.refused": "令牌未被接受",
    "page.problem": "无法读取图片：{error}",
    "page.unsent": "还有 {n} 个文件未发送。确定退出吗？",
    "page.left": "您已退出。",
    "page.forgotten": "页面已忘记您的令牌。令牌在到期前仍然有效。",
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
