# 401 random lines `person | Purchase or Sell | index | count` in /usr/stock.log.
names=(Alice Bob)
actions=(Purchase Sell)
for ((line = 0; line < 401; line++)); do
  echo "${names[RANDOM % 2]} | ${actions[RANDOM % 2]} | $((RANDOM % 100)) | $((RANDOM % 1000))"
done >/usr/stock.log
