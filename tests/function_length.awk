# Lists functions that are longer than `limit` lines, from the line of their name to the closing brace, and fails on any.
#   awk -v limit=120 -f function_length.awk FILE...
# It relies on the formatting of clang-format: a block ends with a brace in the column where its first line begins.
FNR == 1 { delete first }
/^( |  )?}$/ {
  column = match($0, /}/)
  length_ = FNR - first[column] + 1
  if (length_ > longest) longest = length_
  if (length_ > limit) { printf "%s:%d: %d lines, expected at most %d\n", FILENAME, first[column], length_, limit; failed = 1 }
  next
}
# A block begins at the last line that starts in its column and is no label, no preprocessor line and no end of another block.
/^( |  )?[A-Za-z_~[]/ && !/^ *(public|private|protected):/ && !/^ *template </ { column = match($0, /[^ ]/); first[column] = FNR }
END { printf "longest function: %d lines\n", longest; exit failed }
