// The types of dream-client.js; docs/page.md describes them.

/** A picture as the REST API lists it (docs/contract.md), and what live events say about it. */
export interface Picture {
  id: number;
  url: string | null;
  position: number;
  state: "pending" | "processing" | "completed" | "failed";
  status: string;
  filename: string;
  task_id: string | null;
  width_px: number | null;
  height_px: number | null;
  size_bytes: number | null;
  content_type: string | null;
  /** A ThumbHash in base64. */
  placeholder: string | null;
  dominant_colour: string | null;
  focus: Point | null;
  found_focus: Point | null;
  variants: Variant[] | null;
  srcset: string | null;
  duplicate_of: number | null;
  error: string | null;
  error_code: string | null;
  /** With `DREAM_MEDIA_ACCESS=signed`. */
  signed_url?: string | null;
  signed_srcset?: string | null;
  /** While its task runs: percent of the task. */
  progress?: number;
  /** While its task runs: how far this picture is. */
  step?: "staged" | "processing" | "stored" | "failed";
  /** While its task waits for another attempt: failed attempts, the most retries, and when (seconds since the epoch). */
  retry?: { attempt: number; max_retries: number; retry_at: number };
  /** The address of the file that this page has sent, until the picture is stored. */
  preview?: string;
  /** Private facts about the photo, after `detail(id)`. */
  facts?: Record<string, string | number> | null;
}

export type Point = [x: number, y: number];

export interface Variant {
  name: string;
  url: string;
  signed_url?: string;
  width_px: number;
  height_px: number;
  size_bytes: number;
  content_type: string;
}

export interface ClientSettings {
  /** The value for the attribute `accept` of a file input. */
  accept: string;
  max_upload_bytes: number;
  media_access: "link" | "signed" | "owner";
}

export interface ClientOptions {
  dream: number | string;
  /** A JWT, or a function that gets one; it is called again when the last one was refused. */
  token: string | (() => Promise<string> | string);
  /** The gateway's address; by default that of the module. */
  base?: string;
}

export class DreamError extends Error {
  constructor(message: string, status?: number, code?: string);
  /** The HTTP status; 0 if there was no answer. */
  status: number;
  /** The stable name of the error (docs/errors.md), or "". */
  code: string;
}

export interface DreamClientEventMap {
  state: Event;
  problem: Event;
  pictures: CustomEvent<{ changed: Set<number>; removed: Set<number> }>;
  /** The raw `image_update` (docs/contract.md). */
  update: CustomEvent<Record<string, unknown>>;
}

export class DreamClient extends EventTarget {
  constructor(options: ClientOptions);
  static shared(options: ClientOptions): DreamClient;
  static release(client: DreamClient): void;
  readonly dream: number;
  readonly base: string;
  readonly state: "off" | "connecting" | "live" | "lost" | "offline" | "refused";
  readonly reason: string;
  readonly problem: Error | null;
  readonly pictures: Map<number, Picture>;
  readonly hasMore: boolean;
  readonly uploads: UploadQueue;
  order: "newest" | "position";
  connect(): void;
  close(): void;
  sorted(): Picture[];
  loadMore(): Promise<void>;
  detail(id: number): Promise<Picture>;
  remove(id: number, options?: { isLast?: boolean }): Promise<void>;
  retry(id: number): Promise<void>;
  reorder(positions: { id: number; position: number }[]): Promise<void>;
  setFocus(id: number, focus: Point | null): Promise<void>;
  settings(): Promise<ClientSettings>;
  logOut(): Promise<void>;
  call(
    method: string,
    path: string,
    options?: Omit<RequestInit, "method"> & { json?: unknown },
  ): Promise<{ body: any; headers: Headers }>;
  authorized<Answer extends { status: number }>(send: (authorization: string) => Promise<Answer>): Promise<Answer>;
  path(rest?: string): string;
  adopt(task: string, previews: string[]): void;
  addEventListener<Name extends keyof DreamClientEventMap>(
    type: Name,
    listener: (event: DreamClientEventMap[Name]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface UploadBatch {
  id: number;
  /** Files that were not refused, their bytes, the bytes sent of finished files, and the accepted files. */
  count: number;
  bytes: number;
  sent: number;
  accepted: number;
  tasks: Set<string>;
  items: UploadItem[];
}

export interface UploadItem {
  id: string;
  name: string;
  size: number;
  file?: File;
  /** An object URL, or "" for a file that is no picture. */
  preview: string;
  batch: UploadBatch;
  state: "waiting" | "sending" | "accepted" | "refused" | "failed";
  /** The sent share, 0 to 1. */
  share: number;
  error: string;
  code: string;
}

export class UploadQueue extends EventTarget {
  constructor(client: DreamClient);
  readonly items: UploadItem[];
  readonly batches: UploadBatch[];
  readonly pause: { error: string; until: number; isOffline: boolean } | null;
  add(files: Iterable<File>): UploadBatch;
  refuse(name: string, error: string): void;
  cancel(item: UploadItem): boolean;
  canCancel(item: UploadItem): boolean;
  retry(item: UploadItem): void;
  dismiss(item: UploadItem): void;
  dismissBatch(batch: UploadBatch): void;
  close(): void;
  unsent(): Promise<string[]>;
}

/** `<dream-upload>`: it takes the attributes `dream`, `token`, `base` and `compact`, or a client. */
export class DreamUpload extends HTMLElement {
  client: DreamClient | null;
  /** Send these files. */
  add(files: File[]): void;
}

/** `<dream-gallery>`: it takes the attributes `dream`, `token` and `base`, or a client. */
export class DreamGallery extends HTMLElement {
  client: DreamClient | null;
  /** Delete now what could still be undone; resolves when the server has answered. */
  settle(): Promise<void>;
}
