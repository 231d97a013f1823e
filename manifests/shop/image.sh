#!/bin/sh
# Makes shop:1, the image of all tiers of the shop, from this machine's busybox and curl, in the form of `docker save`:
#   manifests/shop/image.sh shop.tar && amoeba image load shop.tar
set -eu
out=$(realpath -m "${1:?usage: image.sh FILE.tar}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root image=$work/image
mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$image"
chmod 1777 "$root/tmp"

cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list | grep -vx busybox); do ln -sf busybox "$root/bin/$applet"; done
# curl asks for names as every other program does; a static busybox can't.
curl=$(readlink -f "$(command -v curl)")
cp "$curl" "$root/bin/curl"
ldd "$curl" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$root${library%/*}"
  cp -L "$library" "$root$library"
done

tar -C "$root" --owner=0 --group=0 -cf "$image/layer.tar" .
digest=$(sha256sum "$image/layer.tar" | cut -d' ' -f1)
architecture=$(dpkg --print-architecture 2>/dev/null || echo amd64)
printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/bin/sh"],"Env":["PATH=/bin"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$architecture" "$digest" > "$image/config.json"
printf '[{"Config":"config.json","RepoTags":["shop:1"],"Layers":["layer.tar"]}]' > "$image/manifest.json"
tar -C "$image" -cf "$out" .
