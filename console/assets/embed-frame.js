// What the pages at /embed/… do: they take the token from the fragment, which no server sees, and tell the page around
// them when they need another. That page then sets the fragment anew; nothing is loaded again.
'use strict'
const sheet = new CSSStyleSheet()
sheet.replaceSync('html { color-scheme: light dark; } body { margin: 0; }')
document.adoptedStyleSheets = [sheet]

const token = () => {
  const said = location.hash.slice(1)
  return new URLSearchParams(said).get('token') ?? said
}
document.addEventListener('DOMContentLoaded', () => {
  const shown = document.querySelector('[account]')
  const set = () => shown.setAttribute('token', token())
  set()
  addEventListener('hashchange', set)
  const tell = (type, more) => {
    if (parent !== window) parent.postMessage({ type, account: shown.getAttribute('account'), ...more }, '*')
  }
  shown.addEventListener('ledger-token', () => tell('ledger-token'))
  shown.addEventListener('ledger-change', () => tell('ledger-state', { state: shown.getAttribute('state') }))
  new ResizeObserver(() => tell('ledger-size', { height: document.body.offsetHeight })).observe(document.body)
})
