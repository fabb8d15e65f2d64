// The public entry: `import { DreamClient } from "https://…/static/dream-client.js"`; docs/page.md describes it.

export { DreamClient, DreamError } from "./client/api.js";
export { UploadQueue } from "./client/uploads.js";
