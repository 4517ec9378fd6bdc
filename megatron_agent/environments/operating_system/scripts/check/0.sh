# Whether a command `calc` evaluates arithmetic to within 1e-5.
near() {
  result=$(calc "$1" </dev/null 2>/dev/null) || return 1
  awk -v got="$result" -v want="$2" 'BEGIN {
    if (got !~ /^[ \t]*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?[ \t]*$/) exit 1
    difference = got - want
    exit !(difference < 1e-5 && difference > -1e-5)
  }'
}
near "2 * (9 / 3)" 6 && near "1 + 2 - 4" -1 && near "7 / 8" 0.875 && near "(1.5 + 2.25) * (10 - 3)" 26.25 &&
  near "22 / 7" 3.142857142857 && near "3" 3
