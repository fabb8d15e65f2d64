BEGIN TRANSACTION;
CREATE TABLE dream_alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT dream_alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "dream_alembic_version" VALUES('0007');
CREATE TABLE "dream_images" (
	id INTEGER NOT NULL, 
	dream_id BIGINT NOT NULL, 
	user_id BIGINT, 
	task_id VARCHAR(155) NOT NULL, 
	"index" INTEGER NOT NULL, 
	position INTEGER DEFAULT 0 NOT NULL, 
	filename VARCHAR(255) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	bucket VARCHAR(63), 
	storage_key VARCHAR(255) NOT NULL, 
	staging_key VARCHAR(255), 
	url VARCHAR(255), 
	width_px INTEGER, 
	height_px INTEGER, 
	size_bytes INTEGER, 
	content_type VARCHAR(64), 
	placeholder VARCHAR(255), 
	error TEXT, 
	swept BOOLEAN DEFAULT 0 NOT NULL, 
	created_at DATETIME NOT NULL, 
	updated_at DATETIME NOT NULL, 
	dominant_colour VARCHAR(7), 
	wanted_variants JSON, 
	variants JSON DEFAULT '[]' NOT NULL, 
	CONSTRAINT pk_dream_images PRIMARY KEY (id), 
	CONSTRAINT uq_dream_images_storage_key UNIQUE (storage_key)
);
INSERT INTO "dream_images" VALUES(1,7,NULL,'up-retried',0,0,'r.jpg','pending','dream-recorded','dreams/20261129/f0eeb601e05147d9a74f24eab8e64e10','staging/20261129/93400a27ab3a49038ce06f3c9f5aca42',NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-11-29 16:29:57.001000','2026-11-29 16:30:04.842000',NULL,'[]','[]');
INSERT INTO "dream_images" VALUES(2,7,70,'up-ok',0,3,'a.jpg','deleting','dream-recorded','dreams/20261129/18b70927af954f788e85e23e52a93700.jpg',NULL,'http://127.0.0.1:15856/media/dreams/20261129/18b70927af954f788e85e23e52a93700.jpg',160,120,11404,'image/jpeg','IAgCBYDaPlUCqolHZjI9SQAAAAAA',NULL,0,'2026-11-29 16:30:05.751000','2026-11-29 16:30:35.758000','#7d7d7d','[]','[]');
INSERT INTO "dream_images" VALUES(3,7,70,'up-ok',1,5,'b.jpg','completed','dream-recorded','dreams/20261129/03921774d6d94f49acea5bfebf2483d7.jpg',NULL,'http://127.0.0.1:15856/media/dreams/20261129/03921774d6d94f49acea5bfebf2483d7.jpg',160,120,11365,'image/jpeg','HwgCBYBnupaNg8hpFkr3qAAAAAAA',NULL,0,'2026-11-29 16:30:05.752000','2026-11-29 16:30:14.351000','#757575','[]','[]');
INSERT INTO "dream_images" VALUES(4,7,NULL,'up-part',0,0,'c.jpg','deleted','dream-recorded','dreams/20261129/3f66e1449e9449d691bf08af44844ed3.jpg',NULL,'http://127.0.0.1:15856/media/dreams/20261129/3f66e1449e9449d691bf08af44844ed3.jpg',160,120,11358,'image/jpeg','HwgCBYB4moA4abpWSslZKQAAAAAA',NULL,0,'2026-11-29 16:30:05.801000','2026-11-29 16:30:21.473000','#7c7c7c','[]','[]');
INSERT INTO "dream_images" VALUES(5,7,NULL,'up-part',1,0,'d.jpg','failed','dream-recorded','dreams/20261129/21df7f0027c14756bb784200f15d39fb','staging/20261129/e8d2a24f449744aaa95597c9d2c78165',NULL,NULL,NULL,NULL,NULL,NULL,'the file is not a picture of an accepted format (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, HEIC)',0,'2026-11-29 16:30:05.801000','2026-11-29 16:30:14.190000',NULL,'[]','[]');
INSERT INTO "dream_images" VALUES(6,7,NULL,'up-bad',0,0,'e.jpg','failed','dream-recorded','dreams/20261129/804c903a10b94ff3a6ea135231d8e1e1','staging/20261129/441a383db1cb4a0f971b71302b668a65',NULL,NULL,NULL,NULL,NULL,NULL,'the file is not a picture of an accepted format (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, HEIC)',0,'2026-11-29 16:30:05.851000','2026-11-29 16:30:14.114000',NULL,'[]','[]');
INSERT INTO "dream_images" VALUES(7,7,NULL,'up-revoked',0,0,'f.jpg','failed','dream-recorded','dreams/20261129/b03001a7c576404f89d1ad5701f74829','staging/20261129/e81db3d19c4c4c049da4e970decf63f0',NULL,NULL,NULL,NULL,NULL,NULL,'it expired before it could run',0,'2026-11-29 16:30:05.894000','2026-11-29 16:30:14.267000',NULL,NULL,'[]');
INSERT INTO "dream_images" VALUES(8,7,NULL,'inline-1',0,1,'g.jpg','completed','dream-recorded','dreams/20261129/7857829e312c46f2908e8fddb0c146c7.jpg',NULL,'http://127.0.0.1:15856/media/dreams/20261129/7857829e312c46f2908e8fddb0c146c7.jpg',16,12,770,'image/jpeg','IQgGBYB0h9eahZSQZGd2jQAAAAAA',NULL,0,'2026-11-29 16:30:13.737000','2026-11-29 16:30:14.183000','#666666','[]','[]');
INSERT INTO "dream_images" VALUES(9,8,NULL,'up-died',0,0,'dies.jpg','processing','dream-recorded','dreams/20261129/ce15d1ddc9184c7687465b84a18ef127','staging/20261129/cc3717b72ada4e0a8e16ca3da2de97b2',NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-11-29 16:30:29.664000','2026-11-29 16:30:30.096000',NULL,'[]','[]');
INSERT INTO "dream_images" VALUES(10,8,NULL,'up-waits',0,0,'waits.jpg','pending','dream-recorded','dreams/20261129/e5d70c58a0f74d36aa146fd1ce0e86d7','staging/20261129/cfa36bacb54e4ee98a95d7c60ca11af4',NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'2026-11-29 16:30:35.747000','2026-11-29 16:30:35.747000',NULL,NULL,'[]');
CREATE TABLE dream_marks (
	name VARCHAR(64) NOT NULL, 
	at DATETIME NOT NULL, 
	CONSTRAINT pk_dream_marks PRIMARY KEY (name)
);
CREATE TABLE dream_periodic (
	name VARCHAR(255) NOT NULL, 
	ran_at DATETIME NOT NULL, 
	task_id VARCHAR(155), 
	taken_at DATETIME, seen_at DATETIME, 
	CONSTRAINT pk_dream_periodic PRIMARY KEY (name)
);
INSERT INTO "dream_periodic" VALUES('nightly','2026-11-29 16:30:19.499000',NULL,NULL,'2026-11-29 16:30:19.499000');
CREATE TABLE dream_revoked_tokens (
	jti VARCHAR(255) NOT NULL, 
	expires_at DATETIME NOT NULL, 
	user_id BIGINT, 
	CONSTRAINT pk_dream_revoked_tokens PRIMARY KEY (jti)
);
INSERT INTO "dream_revoked_tokens" VALUES('token-1','2099-01-01 00:00:00.000000',70);
CREATE TABLE dream_tasks (
	id VARCHAR(155) NOT NULL, 
	name VARCHAR(255) NOT NULL, 
	queue VARCHAR(255), 
	args JSON NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	attempts INTEGER DEFAULT 0 NOT NULL, 
	deaths INTEGER DEFAULT 0 NOT NULL, 
	due_at DATETIME NOT NULL, 
	expires_at DATETIME, 
	lease_token VARCHAR(32), 
	lease_expires_at DATETIME, 
	result JSON, 
	error TEXT, 
	announced_at DATETIME, 
	resends INTEGER DEFAULT 0 NOT NULL, 
	resent_at DATETIME, 
	created_at DATETIME NOT NULL, 
	finished_at DATETIME, error_class VARCHAR(255), 
	CONSTRAINT pk_dream_tasks PRIMARY KEY (id)
);
INSERT INTO "dream_tasks" VALUES('up-retried','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[7, [{"name": "r.jpg", "staged": "staging/20261129/93400a27ab3a49038ce06f3c9f5aca42"}], [0]]','queued',1,0,'2026-11-29 16:31:04.834000',NULL,NULL,NULL,NULL,'could not read an object: the object store did not answer
ObjectStoreUnavailable: could not read an object: the object store did not answer: Could not connect to the endpoint URL: "http://127.0.0.1:9/dream-recorded/staging/20261129/93400a27ab3a49038ce06f3c9f5aca42"',NULL,0,NULL,'2026-11-29 16:29:56.967000',NULL,'dream.errors:ObjectStoreUnavailable');
INSERT INTO "dream_tasks" VALUES('up-ok','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[7, [{"name": "a.jpg", "staged": "staging/20261129/3490fdeaa58a440aab99c10d7348e007"}, {"name": "b.jpg", "staged": "staging/20261129/bb3f8aa2ee13494b94ebabbca1f6a93d"}], [3, 5]]','succeeded',0,0,'2026-11-29 16:30:05.736000',NULL,NULL,NULL,'["http://127.0.0.1:15856/media/dreams/20261129/18b70927af954f788e85e23e52a93700.jpg", "http://127.0.0.1:15856/media/dreams/20261129/03921774d6d94f49acea5bfebf2483d7.jpg"]',NULL,'2026-11-29 16:30:14.484000',0,NULL,'2026-11-29 16:30:05.736000','2026-11-29 16:30:14.459000',NULL);
INSERT INTO "dream_tasks" VALUES('up-part','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[7, [{"name": "c.jpg", "staged": "staging/20261129/762977e84e524cf79744c6b95dfd6737"}, {"name": "d.jpg", "staged": "staging/20261129/e8d2a24f449744aaa95597c9d2c78165"}], [0, 0]]','succeeded',0,0,'2026-11-29 16:30:05.799000',NULL,NULL,NULL,'["http://127.0.0.1:15856/media/dreams/20261129/3f66e1449e9449d691bf08af44844ed3.jpg", ""]',NULL,'2026-11-29 16:30:14.341000',0,NULL,'2026-11-29 16:30:05.799000','2026-11-29 16:30:14.245000',NULL);
INSERT INTO "dream_tasks" VALUES('up-bad','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[7, [{"name": "e.jpg", "staged": "staging/20261129/441a383db1cb4a0f971b71302b668a65"}], [0]]','failed',1,0,'2026-11-29 16:30:05.850000',NULL,NULL,NULL,NULL,'e.jpg: the file is not a picture of an accepted format (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, HEIC)','2026-11-29 16:30:14.216000',0,NULL,'2026-11-29 16:30:05.850000','2026-11-29 16:30:14.172000','dream.errors:ImageRejected');
INSERT INTO "dream_tasks" VALUES('up-revoked','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[7, [{"name": "f.jpg", "staged": "staging/20261129/e81db3d19c4c4c049da4e970decf63f0"}], [0]]','revoked',0,0,'2026-11-29 16:30:07.889000','2026-11-29 16:30:06.022000',NULL,NULL,NULL,'it expired before it could run','2026-11-29 16:30:14.382000',0,NULL,'2026-11-29 16:30:05.889000','2026-11-29 16:30:14.276000',NULL);
INSERT INTO "dream_tasks" VALUES('del-1','dream.celery.tasks.image_tasks.delete_dream_images',NULL,'[7, [{"id": 9, "url": "https://elsewhere.example/dreams/20250101/x.jpg"}], "kim"]','succeeded',0,0,'2026-11-29 16:30:05.907000',NULL,NULL,NULL,'[false]',NULL,'2026-11-29 16:30:13.005000',0,NULL,'2026-11-29 16:30:05.907000','2026-11-29 16:30:12.843000',NULL);
INSERT INTO "dream_tasks" VALUES('clean-1','dream.celery.tasks.token_tasks.cleanup_expired_tokens',NULL,'[]','succeeded',0,0,'2026-11-29 16:30:05.918000',NULL,NULL,NULL,0,NULL,'2026-11-29 16:30:12.357000',0,NULL,'2026-11-29 16:30:05.918000','2026-11-29 16:30:12.306000',NULL);
INSERT INTO "dream_tasks" VALUES('clean-later','dream.celery.tasks.token_tasks.cleanup_expired_tokens',NULL,'[]','queued',0,0,'2026-11-29 16:35:05.935000',NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,'2026-11-29 16:30:05.935000',NULL,NULL);
INSERT INTO "dream_tasks" VALUES('inline-1','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[7, [{"name": "g.jpg", "staged": "staging/20261129/99fe5bffa22a4365aca19d431bfa48a8"}], [1]]','succeeded',0,0,'2026-11-29 16:30:13.203000',NULL,NULL,NULL,'["http://127.0.0.1:15856/media/dreams/20261129/7857829e312c46f2908e8fddb0c146c7.jpg"]',NULL,'2026-11-29 16:30:14.418000',0,NULL,'2026-11-29 16:30:13.203000','2026-11-29 16:30:14.344000',NULL);
INSERT INTO "dream_tasks" VALUES('cleanup-expired-tokens:2026-11-29','dream.celery.tasks.token_tasks.cleanup_expired_tokens',NULL,'[]','succeeded',0,0,'2026-11-29 16:30:19.141000',NULL,NULL,NULL,0,NULL,'2026-11-29 16:30:19.418000',0,NULL,'2026-11-29 16:30:19.141000','2026-11-29 16:30:19.329000',NULL);
INSERT INTO "dream_tasks" VALUES('9b279e0b-ef59-4a2c-bc07-58fd235b6b9f','dream.celery.tasks.image_tasks.delete_dream_images',NULL,'[7, [{"id": 1, "url": "http://127.0.0.1:15856/media/dreams/20261129/3f66e1449e9449d691bf08af44844ed3.jpg"}], "kim"]','succeeded',0,0,'2026-11-29 16:30:21.370000',NULL,NULL,NULL,'[true]',NULL,'2026-11-29 16:30:21.513000',0,NULL,'2026-11-29 16:30:21.370000','2026-11-29 16:30:21.478000',NULL);
INSERT INTO "dream_tasks" VALUES('up-died','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[8, [{"name": "dies.jpg", "staged": "staging/20261129/cc3717b72ada4e0a8e16ca3da2de97b2"}], [0]]','running',0,0,'2026-11-29 16:30:29.663000',NULL,'b4b4f8f0f9874320a8a01e2c88c53cbb','2026-11-29 16:30:41.786000',NULL,NULL,NULL,0,NULL,'2026-11-29 16:30:29.663000',NULL,NULL);
INSERT INTO "dream_tasks" VALUES('up-waits','dream.celery.tasks.image_tasks.process_and_upload_images',NULL,'[8, [{"name": "waits.jpg", "staged": "staging/20261129/cfa36bacb54e4ee98a95d7c60ca11af4"}], [0]]','queued',0,0,'2026-11-29 16:30:35.745000',NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,'2026-11-29 16:30:35.745000',NULL,NULL);
INSERT INTO "dream_tasks" VALUES('7543c1ac-24ae-47df-8f7f-dd5f47b2de24','dream.celery.tasks.image_tasks.delete_dream_images',NULL,'[7, [{"id": 1, "url": "http://127.0.0.1:15856/media/dreams/20261129/18b70927af954f788e85e23e52a93700.jpg"}], "kim"]','queued',0,0,'2026-11-29 16:30:35.755000',NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,'2026-11-29 16:30:35.755000',NULL,NULL);
CREATE TABLE dreams (
	id INTEGER NOT NULL, 
	user_id BIGINT NOT NULL, 
	username VARCHAR(150) NOT NULL, 
	title VARCHAR(255) DEFAULT '' NOT NULL, 
	CONSTRAINT pk_dreams PRIMARY KEY (id)
);
INSERT INTO "dreams" VALUES(7,70,'kim','Dream 7');
CREATE INDEX ix_dream_tasks_unannounced ON dream_tasks (finished_at) WHERE finished_at IS NOT NULL AND announced_at IS NULL;
CREATE INDEX ix_dream_images_task_id ON dream_images (task_id);
CREATE INDEX ix_dream_images_dream_id_state ON dream_images (dream_id, state);
CREATE INDEX ix_dream_images_unswept ON dream_images (updated_at) WHERE state IN ('deleted', 'failed') AND NOT swept;
CREATE INDEX ix_dream_images_staged ON dream_images (staging_key) WHERE staging_key IS NOT NULL;
CREATE INDEX ix_dream_tasks_leased ON dream_tasks (lease_token) WHERE lease_token IS NOT NULL;
CREATE INDEX ix_dream_tasks_never_resent ON dream_tasks (due_at, id) WHERE state IN ('queued', 'running') AND resent_at IS NULL;
CREATE INDEX ix_dream_tasks_resent ON dream_tasks (resent_at, id) WHERE state IN ('queued', 'running') AND resent_at IS NOT NULL;
CREATE INDEX ix_dream_tasks_failed ON dream_tasks (finished_at, id) WHERE state = 'failed';
CREATE INDEX ix_dream_tasks_announced ON dream_tasks (finished_at, id) WHERE finished_at IS NOT NULL AND announced_at IS NOT NULL;
CREATE INDEX ix_dream_images_pending ON dream_images (state, user_id) WHERE state IN ('pending', 'processing');
CREATE INDEX ix_dream_images_staged_ended ON dream_images (updated_at, id) WHERE state IN ('completed', 'deleted', 'failed') AND staging_key IS NOT NULL;
CREATE INDEX ix_dream_images_tombstones ON dream_images (updated_at, id) WHERE state = 'deleted' AND swept;
CREATE INDEX ix_dream_revoked_tokens_expires_at ON dream_revoked_tokens (expires_at);
COMMIT;
