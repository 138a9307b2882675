#!/bin/sh
# review_page.sh PROGRAM RECEIPT FOLDER - the page for review in a real browser: a document full of markup runs nothing, fetches nothing and
# is all there to read. Exit 77: no browser here.
set -u
program=$1 receipt=$2 folder=$3/review_page
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || { echo "SKIPPED: no chromium"; exit 77; }
rm -rf "$folder"; mkdir -p "$folder"
cat > "$folder/answer.txt" <<'END'
SUPPLIER_NAME: <script>document.title="ran"</script>Acme
BUSINESS_ADDRESS: "><img src=x onerror="document.title='ran'"><svg onload="document.title='ran'">
PAYMENT_METHOD: <iframe src="javascript:parent.document.title='ran'"></iframe>
LINE_ITEM_DESCRIPTIONS: Milk | </td></tr></table><script>document.title="ran"</script> | Bread
LINE_ITEM_TOTAL_PRICES: $1.00 | $2.00 | $3.00
BUSINESS_ABN: 51 824 753 557
TOTAL_AMOUNT: $6.00
END
"$program" validate --schema receipt --format html --image "$receipt" -o "$folder/page.html" "$folder/answer.txt" || exit 1
timeout 120 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$folder/profile" --dump-dom "file://$folder/page.html" > "$folder/dom.html" 2> "$folder/log" ||
    { cat "$folder/log"; exit 1; }
failed=0
expect() { grep -qF "$1" "$folder/dom.html" || { echo "not on the page: $1"; failed=1; }; }
reject() { ! grep -qF "$1" "$folder/dom.html" || { echo "on the page: $1"; failed=1; }; }
expect '<title>Review of extracted fields</title>'
expect '&lt;script&gt;document.title="ran"&lt;/script&gt;Acme'
expect 'check digits do not fit'
expect '<td class="number ">$3.00</td>'
expect 'data:image/png;base64,'
reject '<script'
reject '<iframe'
reject '<svg'
reject '<img src'
exit $failed
