# Read the settings of the services into a shell of root, as the units do: . /opt/dream/deploy/settings.sh
# Each file of /etc/dream/credentials is a setting; dream.env has priority.

for file in /etc/dream/credentials/*; do
    if [ -e "$file" ]; then
        export "DREAM_$(basename "$file" | tr a-z A-Z)=$(cat "$file")"
    fi
done
set -a
. /etc/dream/dream.env
set +a
