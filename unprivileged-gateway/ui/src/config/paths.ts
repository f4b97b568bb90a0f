// Which key a line of YAML stands for: `http.listen` for the line `  listen: …` below `http:`.
//
// Follows indentation only, which is enough for what the gateway prints (block style, two spaces, no anchors). A list item counts as
// part of the key that holds it.

export function pathsOf(lines: readonly string[]): string[] {
  const open: { indent: number; key: string }[] = [];
  return lines.map((line) => {
    const parts = /^(\s*)(- )?("?)([\w.-]+)\3:(\s|$)/.exec(line);
    const indent = /^\s*/.exec(line)?.[0].length ?? 0;
    if (!parts || parts[2]) return open.filter((o) => o.indent < indent || parts?.[2]).map((o) => o.key).join('.');
    while (open.length && (open.at(-1)?.indent ?? 0) >= indent) open.pop();
    open.push({ indent, key: parts[4] ?? '' });
    return open.map((o) => o.key).join('.');
  });
}
