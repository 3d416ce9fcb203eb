"""What keeps a page from people who see little, hear it read, use no mouse, or hold a telephone.

Rules of WCAG 2.2 that a program can check, in a real browser; numbers in brackets are success criteria.
"""

from __future__ import annotations

from typing import Any

from tests.chrome import Tab

_NAMED = {
    "image", "button", "link", "combobox", "slider", "meter", "textbox", "checkbox", "radio", "table", "region", "spinbutton",
}  # fmt: skip
_PAGE = """(() => {
const faults = [], seen = new Set();
const text = e => (e.outerHTML || "").replace(/data:[^"')]*/g, "data:").slice(0, 90);
const rgb = c => (c.match(/[\\d.]+/g) || []).map(Number);
const shown = e => { const s = getComputedStyle(e), b = e.getBoundingClientRect();
  return s.visibility !== "hidden" && s.display !== "none" && +s.opacity !== 0 && b.width > 1 && b.height > 1; };
const light = c => {
  const [r, g, b] = c.map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = e => { let stack = [];
  for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor), a = c.length > 3 ? c[3] : 1;
    if (c.length && a > 0) { stack.push([c.slice(0, 3), a]); if (a === 1) break; } }
  let under = [255, 255, 255];
  for (const [c, a] of stack.reverse()) under = under.map((u, i) => u * (1 - a) + c[i] * a);
  return under; };
if (!document.documentElement.lang) faults.push("[3.1.1] html has no lang");
if (!document.title.trim()) faults.push("[2.4.2] the page has no title");
if (/user-scalable\\s*=\\s*no|maximum-scale/.test(document.querySelector("meta[name=viewport]")?.content || "no viewport"))
  faults.push("[1.4.4] the page cannot be enlarged");
if (document.querySelector("head > meta[http-equiv=refresh]")) faults.push("[2.2.1] the page reloads and nobody can stop it");
const heads = [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].filter(shown).map(h => [+h.tagName[1], h.textContent.trim()]);
if (heads.filter(h => h[0] === 1).length !== 1) faults.push("[1.3.1] not one h1");
heads.forEach((h, i) => { if (i && h[0] > heads[i - 1][0] + 1) faults.push(`[1.3.1] heading level skipped at ${h[1]}`); });
if (document.querySelectorAll("main").length !== 1) faults.push("[1.3.1] not one main");
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const e = node.parentElement;
  if (!node.data.trim() || !shown(e) || e.closest("script,style,noscript,option")) continue;
  if (!e.closest("main,header,nav,footer,aside")) faults.push(`[1.3.1] outside landmarks: ${node.data.trim().slice(0, 40)}`);
  const s = getComputedStyle(e), size = parseFloat(s.fontSize), large = size >= 24 || (size >= 18.66 && +s.fontWeight >= 700);
  const a = light(rgb(s.color).slice(0, 3)), b = light(behind(e)), ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const key = s.color + behind(e) + large;
  if (!(ratio >= (large ? 3 : 4.5)) && !seen.has(key)) { seen.add(key);
    faults.push(`[1.4.3] contrast ${ratio.toFixed(2)} of ${s.color} on ${behind(e)}: ${node.data.trim().slice(0, 40)}`); }
}
for (const img of document.querySelectorAll("img")) {
  if (!img.hasAttribute("alt")) faults.push(`[1.1.1] no alt: ${text(img)}`);
  if (shown(img) && !img.naturalWidth) faults.push(`an image that does not show: ${text(img)}`); }
for (const cell of document.querySelectorAll("th")) if (!cell.scope) faults.push(`[1.3.1] th without scope: ${text(cell)}`);
for (const table of document.querySelectorAll("table")) if (!table.querySelector("th")) faults.push(`[1.3.1] ${text(table)}`);
const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
ids.filter((id, i) => ids.indexOf(id) !== i).forEach(id => faults.push(`[4.1.1] id ${id} twice`));
for (const link of document.querySelectorAll("a[href^='#']"))
  if (!document.getElementById(link.hash.slice(1))) faults.push(`a link to nowhere: ${link.hash}`);
for (const e of document.querySelectorAll("*")) {
  const s = getComputedStyle(e);
  if (/auto|scroll/.test(s.overflowX) && e.scrollWidth > e.clientWidth + 1 && shown(e) && e.tabIndex < 0 &&
      !e.querySelector("a,button,input,select")) faults.push(`[2.1.1] scrolls, and no key gets there: ${text(e)}`); }
for (const e of document.querySelectorAll("button,select,input")) {
  const b = e.getBoundingClientRect();
  if (shown(e) && !(b.width >= 24 && b.height >= 24)) faults.push(`[2.5.8] target ${b.width}x${b.height}: ${text(e)}`); }
if (document.documentElement.scrollWidth > innerWidth) faults.push(`[1.4.10] ${document.documentElement.scrollWidth} px wide`);
return faults; })()"""
_FOCUS = """(() => { const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
if (e === document.body) return null;
if (!e.dataset.order) e.dataset.order = [...document.querySelectorAll("*")].indexOf(e);
return { order: +e.dataset.order, outlined: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 0,
  on: b.bottom > 0 && b.top < innerHeight, what: e.outerHTML.replace(/data:[^"']*/g, "").slice(0, 90) }; })()"""


def faults(tab: Tab) -> list[str]:
    """What is wrong with the page that is open, in words; nothing is good."""
    return [*tab.js(_PAGE), *_unnamed(tab.tree())]


def focus_faults(tab: Tab, most: int) -> list[str]:
    """Tab through the page from its beginning: order [2.4.3], visible focus [2.4.7], never out of sight [2.4.11], no trap."""
    found, before = [], -1
    for _ in range(most):
        tab.press("Tab")
        at = tab.js(_FOCUS)
        if at is None or at["order"] == before:
            break
        if not at["outlined"]:
            found.append(f"[2.4.7] focus cannot be seen: {at['what']}")
        if not at["on"]:
            found.append(f"[2.4.11] focus is out of sight: {at['what']}")
        if not at["order"] > before:
            found.append(f"[2.4.3] focus goes back to {at['what']}")
        before = at["order"]
    return found


def _unnamed(tree: list[dict[str, Any]]) -> list[str]:
    """[4.1.2] controls and images without a name."""
    rows = [(node["role"]["value"].lower(), node.get("name", {}).get("value", "")) for node in tree]
    return [f"[4.1.2] a {role} has no name" for role, name in rows if role in _NAMED and not name.strip()]
