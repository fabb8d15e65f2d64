// The public entry: `import { DreamClient } from "https://…/static/dream-client.js"`; docs/page.md describes it.

import { DreamUpload } from "./client/upload-element.js";

export { DreamClient, DreamError } from "./client/api.js";
export { UploadQueue } from "./client/uploads.js";
export { DreamUpload };

customElements.define("dream-upload", DreamUpload);
