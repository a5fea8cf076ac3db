# `bash curl.sh URL`: curl, with CURL_OPTIONS besides, brings the lines, and this reads them as WHATWG HTML says, as far
# as the broker's frames need it, and goes on after the last id where a stream breaks. Prints a JSON object an event.

url=$1
# Leaves, with all that it has started, when standard input ends.
exec 3<&0
(cat <&3 >/dev/null; kill 0) &

quoted() { # as a JSON string
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

last=
while :; do
  id=$last type=message data=
  while IFS= read -r line; do
    case $line in
      'id: '*) id=${line#id: } ;;
      'event: '*) type=${line#event: } ;;
      'data: '*) data=${line#data: } ;;
      '')
        last=$id
        [[ $data ]] && printf '{"id":%s,"type":%s,"data":%s}\n' "$(quoted "$id")" "$(quoted "$type")" "$(quoted "$data")"
        type=message data=
        ;;
    esac
  done < <(exec curl --silent --no-buffer --noproxy '*' $CURL_OPTIONS ${last:+--header "Last-Event-ID: $last"} "$url" 3<&-)
  sleep 0.1
done
