// The public entry: `import { DreamClient } from "https://…/static/dream-client.js"`; docs/page.md describes it.

import { DreamGallery } from "./client/gallery-element.js";
import { DreamUpload } from "./client/upload-element.js";

export { DreamClient, DreamError } from "./client/api.js";
export { UploadQueue } from "./client/uploads.js";
export { DreamGallery, DreamUpload };

// A page may load the module of a second gateway, too: the elements stay those of the first.
for (const [name, element] of [["dream-gallery", DreamGallery], ["dream-upload", DreamUpload]]) {
  if (!customElements.get(name)) customElements.define(name, element);
}
