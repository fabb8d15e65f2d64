// The public entry: `import { DreamClient } from "https://…/static/dream-client.js"`; docs/page.md describes it.

import { DreamGallery } from "./client/gallery-element.js";
import { DreamUpload } from "./client/upload-element.js";

export { DreamClient, DreamError } from "./client/api.js";
export { UploadQueue } from "./client/uploads.js";
export { DreamGallery, DreamUpload };

customElements.define("dream-gallery", DreamGallery);
customElements.define("dream-upload", DreamUpload);
