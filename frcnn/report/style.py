"""How the page of a run looks: light or dark as the reader's system, on a desk and on a phone."""

STYLE = """
:root {
  --ground: #f6f7f9; --card: #ffffff; --ink: #1c2430; --quiet: #647082; --rule: #dfe3e9; --accent: #0072b2;
  --good: #00704f; --bad: #b33a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161c; --card: #1a2029; --ink: #e6eaf0; --quiet: #97a3b4; --rule: #2d3642; --accent: #56b4e9;
    --good: #35c79b; --bad: #ff8a50;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 12px; }
p { margin: 0 0 12px; overflow-wrap: anywhere; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 18px 20px;
  margin-top: 18px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 14px; }
.state { display: inline-block; padding: 1px 10px; border-radius: 99px; color: #fff; background: var(--bad);
  font-weight: 600; }
.state.finished { background: var(--good); }
@media (prefers-color-scheme: dark) { .state { color: #10141a; } }
.reason { white-space: pre-wrap; border-left: 4px solid var(--bad); padding: 4px 12px; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 12px 20px;
  margin: 14px 0 0; }
dt { color: var(--quiet); font-size: 0.85rem; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
header dd { font-size: 1.1rem; font-weight: 600; }
header dl { margin-bottom: 12px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 22px; }
.chart { max-width: 640px; }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; overflow-wrap: anywhere; }
.chart > svg { display: block; width: 100%; height: auto; overflow: visible; }
.chart text { fill: var(--quiet); font-size: 13px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--rule); }
.axis { stroke: var(--quiet); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 6px 0 12px; padding: 0;
  font-size: 0.9rem; }
.legend li { min-width: 0; overflow-wrap: anywhere; }
.legend svg { vertical-align: middle; }
.legend b { font-variant-numeric: tabular-nums; }
.swatch { display: inline-block; width: 0.8em; height: 0.8em; border-radius: 2px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr));
  gap: 16px; }
.pictures img { display: block; width: 100%; height: auto; border-radius: 6px; }
.pictures figcaption { font-size: 0.85rem; font-weight: 400; color: var(--quiet); }
.pictures figure { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.scrolls { overflow-x: auto; margin-bottom: 12px; }
.scrolls:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; min-width: min(100%, 420px);
  font-size: 0.9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 6px; }
th { text-align: left; color: var(--quiet); font-weight: 600; border-bottom: 2px solid var(--rule); }
th, td { padding: 5px 26px 5px 0; vertical-align: top; }
td { border-bottom: 1px solid var(--rule); white-space: nowrap; }
.number { text-align: right; }
.total td { font-weight: 700; }
code { font: 0.88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
td code { white-space: normal; overflow-wrap: anywhere; }
.quiet, small { color: var(--quiet); }
small { margin-left: 10px; font-weight: 400; }
details { border-top: 1px solid var(--rule); }
summary { cursor: pointer; padding: 8px 0; font-weight: 600; }
@media (max-width: 600px) {
  main { padding: 16px 12px 40px; }
  section { padding: 14px; }
  th, td { padding-right: 16px; }
  .chart text { font-size: 18px; }
  dl { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); }
}
@media print { section { break-inside: avoid; } }
"""
"""The style sheet."""
