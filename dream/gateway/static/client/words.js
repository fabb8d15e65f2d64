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
    "upload.title": "Add your first pictures",
    "upload.choose": "Add pictures",
    "upload.camera": "Take a photo",
    "upload.drop": "or drop or paste them anywhere",
    "upload.formats": "{kinds}, up to {size} each",
    "upload.over": "Drop them to add them",
    "upload.folder": "this is a folder; drop the pictures in it",
    "upload.unreadable": "the file was changed or moved; choose it again",
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
    "gallery.label": "Pictures",
    "gallery.empty": "There are no pictures yet.",
    "gallery.order": "Order",
    "gallery.newest": "Newest",
    "gallery.position": "Arranged",
    "gallery.select": "Select",
    "gallery.all": "Select all",
    "gallery.done": "Done",
    "gallery.delete": "Delete",
    "gallery.selected": "{n} selected",
    "gallery.deleted": "{n} picture deleted|{n} pictures deleted",
    "gallery.undo": "Undo",
    "gallery.not_deleted": "{n} picture was not deleted: {error}|{n} pictures were not deleted: {error}",
    "gallery.not_again": "Not tried again: {error}",
    "gallery.not_moved": "Not moved: {error}",
    "gallery.not_read": "Not everything was selected: {error}",
    "gallery.news_added": "{n} new picture.|{n} new pictures.",
    "gallery.news_completed": "{n} picture is ready.|{n} pictures are ready.",
    "gallery.news_failed": "{n} picture failed: {error}|{n} pictures failed: {error}",
    "gallery.news_gone": "{n} picture was deleted.|{n} pictures were deleted.",
    "gallery.move_hint": "Drag pictures to arrange them, or press M on one.",
    "gallery.move_first": "Choose Arranged to move pictures.",
    "gallery.lifted": "Picked up. Arrows move, Enter drops, Escape puts back.",
    "gallery.gap": "Place {n} of {of}.",
    "gallery.dropped": "Dropped.",
    "gallery.put_back": "Put back.",
    "viewer.close": "Close",
    "viewer.before": "Previous picture",
    "viewer.next": "Next picture",
    "viewer.facts": "Facts",
    "viewer.download": "Download",
    "viewer.delete": "Delete",
    "viewer.focus": "Choose the focal point",
    "viewer.focus_hint": "Click the point that crops keep",
    "viewer.focus_set": "The focal point is set.",
    "viewer.not_focused": "The focal point was not set: {error}",
    "viewer.name": "File",
    "viewer.taken": "Taken",
    "viewer.pixels": "Pixels",
    "viewer.size": "Size",
    "viewer.type": "Type",
    "viewer.camera": "Camera",
    "viewer.lens": "Lens",
    "viewer.settings": "Exposure",
    "viewer.place": "Place",
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
    "upload.title": "添加第一批图片",
    "upload.choose": "添加图片",
    "upload.camera": "拍照",
    "upload.drop": "也可以拖放或粘贴到页面任意位置",
    "upload.formats": "{kinds}，每个不超过 {size}",
    "upload.over": "松开即可添加",
    "upload.folder": "这是文件夹，请拖放其中的图片",
    "upload.unreadable": "文件已更改或移动，请重新选择",
    "upload.unsent": "页面关闭时尚未发送，请重新添加",
    "upload.queue": "发送",
    "upload.batches": "进度",
    "upload.files": "文件",
    "upload.more": "还有 {n} 个",
    "upload.begun": "正在发送 {n} 张图片",
    "upload.sending": "发送中 · 已发送 {n} 张，共 {all} 张 · {done}，共 {size}",
    "upload.processing": "处理中 · 已完成 {n} 张，共 {all} 张",
    "upload.done": "已添加 {n} 张图片",
    "upload.some": "已添加 {n} 张，失败 {failed} 张",
    "upload.pause": "{error}，{s}后重试",
    "upload.cancel": "取消发送 {name}",
    "upload.again": "重新发送 {name}",
    "upload.dismiss": "关闭 {name}",
    "page.enter": "打开一个 dream",
    "page.hint": "一个 dream 包含一个相册、一篇文章或日记的图片。令牌由您的应用提供。",
    "page.dream": "dream 编号",
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
    "gallery.label": "图片",
    "gallery.empty": "还没有图片。",
    "gallery.order": "排序",
    "gallery.newest": "最新",
    "gallery.position": "自定义",
    "gallery.select": "选择",
    "gallery.all": "全选",
    "gallery.done": "完成",
    "gallery.delete": "删除",
    "gallery.selected": "已选 {n} 张",
    "gallery.deleted": "已删除 {n} 张图片",
    "gallery.undo": "撤销",
    "gallery.not_deleted": "{n} 张图片未能删除：{error}",
    "gallery.not_again": "未能重试：{error}",
    "gallery.not_moved": "未能移动：{error}",
    "gallery.not_read": "未能全选：{error}",
    "gallery.news_added": "新增 {n} 张图片。",
    "gallery.news_completed": "{n} 张图片已就绪。",
    "gallery.news_failed": "{n} 张图片失败：{error}",
    "gallery.news_gone": "{n} 张图片已被删除。",
    "gallery.move_hint": "拖动图片来排列，或在图片上按 M 键。",
    "gallery.move_first": "请先选择“自定义”排序，再移动图片。",
    "gallery.lifted": "已拿起。方向键移动，回车放下，Esc 放回。",
    "gallery.gap": "位置 {n}，共 {of}。",
    "gallery.dropped": "已放下。",
    "gallery.put_back": "已放回。",
    "viewer.close": "关闭",
    "viewer.before": "上一张",
    "viewer.next": "下一张",
    "viewer.facts": "信息",
    "viewer.download": "下载",
    "viewer.delete": "删除",
    "viewer.focus": "选择焦点",
    "viewer.focus_hint": "点击裁剪时要保留的位置",
    "viewer.focus_set": "焦点已设置。",
    "viewer.not_focused": "焦点未能设置：{error}",
    "viewer.name": "文件",
    "viewer.taken": "拍摄时间",
    "viewer.pixels": "像素",
    "viewer.size": "大小",
    "viewer.type": "格式",
    "viewer.camera": "相机",
    "viewer.lens": "镜头",
    "viewer.settings": "曝光",
    "viewer.place": "地点",
  },
};

/** Reasons of failures by their code, for languages that the server does not speak. Others stay in its words. */
const reasons = {
  zh: {
    file_empty: "文件是空的",
    file_too_large: "文件太大",
    upload_gone: "上传的文件已不存在，请重新上传",
    not_an_image: "文件不是可接受格式的图片",
    format_not_supported: "不支持这种存储方式，请另存为 JPEG 或 PNG",
    heic_not_supported: "此处不接受 HEIC，请另存为 JPEG",
    raw_not_supported: "不支持相机原始文件，请导出为 JPEG",
    image_damaged: "图片已损坏或不完整",
    too_many_pixels: "图片的像素太多",
    side_too_long: "图片的边太长",
    too_many_frames: "动画的帧数太多",
    too_much_memory: "图片需要的内存太多，请将其缩小",
    too_many_layers: "JPEG 的渐进扫描太多，请另存为非渐进式 JPEG",
    too_many_pieces: "文件的分段太多，请用其他软件另存",
    metadata_too_large: "图片的元数据太大，请去除后再保存",
    too_many_pending: "等待处理的图片太多，请稍后再试",
    quota_exceeded: "存储空间已满，请先删除一些图片",
    image_out_of_memory: "处理图片时内存不足",
    image_timed_out: "处理图片的时间太长",
    image_crashed: "处理图片时出错",
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

/** Why a picture or a file failed, in the reader's language where it has a text for the code. */
export function reasonText({ error, error_code: code }) {
  return reasons[language]?.[code] ?? error ?? "";
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
