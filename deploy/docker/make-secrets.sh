#!/bin/sh
# Create the files in secrets/ for compose.yaml, with new random passwords. It never replaces a file that is there.
# The folder is closed to other users of this machine; the files are open to the users inside the containers.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
    echo "make-secrets.sh: secrets/ is there already; remove it first to create new passwords" >&2
    exit 1
fi
umask 077
mkdir secrets.new
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
file() { cat > "secrets.new/$1"; chmod 0444 "secrets.new/$1"; }

database=$(random) redis=$(random) key=$(random) secret=$(random)
printf %s "redis://:$redis@valkey:6379/0" | file dream_broker_url
printf %s "postgresql://dream:$database@postgres/dream" | file dream_database_url
printf %s "$(random)$(random)" | file dream_jwt_secret
printf %s "$key" | file dream_s3_access_key
printf %s "$secret" | file dream_s3_secret_key
printf %s "$database" | file postgres_password
printf 'requirepass %s\n' "$redis" | file valkey_conf
printf '{"identities": [{"name": "dream", "credentials": [{"accessKey": "%s", "secretKey": "%s"}],\n  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}\n' "$key" "$secret" | file s3_json
mv secrets.new secrets
