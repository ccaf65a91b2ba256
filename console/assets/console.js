// The console's script. Every page works without it; it adds what a page alone can't do: figures that move, times in the
// reader's zone, keys. It makes no HTML of its own: what it shows comes from pages.
'use strict'

const root = document.documentElement
const one = (selector, within = document) => within.querySelector(selector)
const all = (selector, within = document) => [...within.querySelectorAll(selector)]

// Times: the reader's zone in the text, UTC when pointed at.
const shapes = {
  day: { day: 'numeric', month: 'short', year: 'numeric' },
  minute: { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit' },
  second: { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit' },
}
const formats = {}
for (const [name, shape] of Object.entries(shapes)) formats[name] = new Intl.DateTimeFormat('en-GB', { ...shape, hourCycle: 'h23' })
function localTimes(within) {
  for (const time of all('time[data-show]', within)) {
    const format = formats[time.dataset.show]
    if (format) time.textContent = format.format(new Date(time.dateTime))
  }
}
localTimes(document)

// Theme.
function setTheme(theme) {
  root.dataset.theme = theme
  const secure = location.protocol === 'https:' ? '; Secure' : ''
  document.cookie = `ledger_theme=${theme}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`
  for (const button of all('[data-theme-form] button')) button.setAttribute('aria-pressed', String(button.value === theme))
}
function isDark() {
  return root.dataset.theme === 'dark' || (root.dataset.theme !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches)
}
document.addEventListener('submit', (event) => {
  if (event.target.matches('[data-theme-form]') && event.submitter) {
    event.preventDefault()
    setTheme(event.submitter.value)
  }
  // A form is sent once.
  if (event.target.method === 'post' && !event.defaultPrevented) {
    if (event.target.dataset.sent) event.preventDefault()
    event.target.dataset.sent = 'yes'
  }
})
addEventListener('pageshow', () => all('form[data-sent]').forEach((form) => delete form.dataset.sent))

// Menus close when the reader goes elsewhere.
const floating = 'details.who, details.menu, details.confirm'
document.addEventListener('click', (event) => {
  for (const menu of all(floating)) if (menu.open && !menu.contains(event.target)) menu.open = false
})

// Links that are good once sign in by a form, so that previews of them don't.
const auto = one('form[data-auto-submit]')
if (auto) auto.requestSubmit()
document.addEventListener('change', (event) => {
  if (event.target.matches('[data-auto-filter] select')) event.target.form.requestSubmit()
})

// Live: at each event the page is read again, and its parts that have changed are replaced where they stand.
const LIVE_PAUSE = 500
const badge = one('[data-live-url]')
if (badge && 'EventSource' in window) {
  let source, timer, running = false, again = false, last = 0
  const say = (isLive) => {
    badge.hidden = false
    badge.classList.toggle('is-away', !isLive)
    one('[data-live-word]', badge).textContent = isLive ? 'Live' : 'Reconnecting'
  }
  const renew = async () => {
    if (running) { again = true; return }
    running = true
    last = performance.now()
    try {
      const answer = await fetch(location.href, { credentials: 'same-origin', redirect: 'manual' })
      if (answer.type === 'opaqueredirect' || answer.status === 401) location.reload()
      if (answer.ok) replace(new DOMParser().parseFromString(await answer.text(), 'text/html'))
    } catch { say(false) }
    running = false
    if (again) { again = false; soon() }
  }
  const soon = () => {
    clearTimeout(timer)
    timer = setTimeout(renew, Math.max(0, last + LIVE_PAUSE - performance.now()))
  }
  const open = () => {
    source = new EventSource(badge.dataset.liveUrl)
    source.onopen = () => say(true)
    source.onerror = () => say(false)
    let first = true
    source.addEventListener('balance', () => { if (!first) soon(); first = false })
    source.addEventListener('firing', soon)
    source.addEventListener('stop', soon)
  }
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) { source?.close(); source = undefined }
    else if (!source) { open(); renew() }
  })
  addEventListener('pagehide', () => { source?.close(); source = undefined })
  addEventListener('pageshow', () => { if (!source && !document.hidden) open() })
}
function replace(fresh) {
  localTimes(fresh)
  for (const part of all('[data-live]')) {
    const next = one(`[data-live="${CSS.escape(part.dataset.live)}"]`, fresh)
    // What somebody types, or is about to confirm, stays.
    const typing = part.contains(document.activeElement) && document.activeElement.matches('input, select, textarea')
    const busy = typing || one('details.confirm[open]', part)
    if (!next || busy) continue
    for (const kept of all('details[data-keep]', part)) {
      const same = one(`details[data-keep="${CSS.escape(kept.dataset.keep)}"]`, next)
      if (same) same.open = kept.open
    }
    for (const [at, kept] of all('details.as-table', part).entries()) {
      const same = all('details.as-table', next)[at]
      if (same) same.open = kept.open
    }
    if (part.innerHTML === next.innerHTML && part.className === next.className) continue
    const focused = all('a, summary, button, [tabindex]', part).indexOf(document.activeElement)
    part.className = next.className
    part.replaceChildren(...next.childNodes)
    if (focused >= 0) all('a, summary, button, [tabindex]', part)[focused]?.focus({ preventScroll: true })
  }
}

// Search.
const SEARCH_PAUSE = 120
const search = one('[data-search]')
if (search) {
  const input = one('input[name="q"]', search)
  const results = one('[data-search-results]', search)
  let timer, asked = 0
  const links = () => all('a', results)
  const at = () => links().findIndex((link) => link.classList.contains('is-at'))
  const go = (to) => {
    const found = links()
    found.forEach((link, index) => link.classList.toggle('is-at', index === to))
    found[to]?.scrollIntoView({ block: 'nearest' })
  }
  const look = async () => {
    const mine = ++asked
    if (!input.value.trim()) { results.replaceChildren(); return }
    const query = new URLSearchParams(new FormData(one('form', search)))
    try {
      const answer = await fetch(`/search?${query}`, { credentials: 'same-origin' })
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
      const found = one('[data-results]', page)
      if (mine === asked && found) { results.replaceChildren(...found.childNodes); go(0) }
    } catch { /* the next letter asks again */ }
  }
  input.addEventListener('input', () => { clearTimeout(timer); timer = setTimeout(look, SEARCH_PAUSE) })
  input.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
    const number = links().length
    if (step && number) { event.preventDefault(); go((at() + step + number) % number) }
    if (event.key === 'Enter' && at() >= 0) { event.preventDefault(); links()[at()].click() }
  })
  search.addEventListener('click', (event) => { if (event.target === search) search.close() })
  one('[data-search-open]')?.addEventListener('click', (event) => { event.preventDefault(); openSearch() })
}
function openSearch() {
  if (!search || search.open) return
  search.showModal()
  one('input[name="q"]', search).select()
}

// Keys.
const keys = one('[data-keys]')
async function showKeys() {
  if (!keys || keys.open) return
  const content = one('[data-keys-content]', keys)
  if (!content.firstChild) {
    const page = new DOMParser().parseFromString(await (await fetch('/help/keys')).text(), 'text/html')
    content.replaceChildren(...(one('[data-keys-page]', page)?.childNodes ?? []))
  }
  keys.showModal()
}
keys?.addEventListener('click', (event) => { if (event.target === keys) keys.close() })
const places = { a: '/', o: '', u: '/usage', p: '/people', l: '/limits', b: '/billing', m: '/messages', g: '/grants', h: '/history', s: '/settings' }
let began = false
document.addEventListener('keydown', (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === 'k') { event.preventDefault(); openSearch(); return }
  const typing = event.target.closest?.('input, select, textarea, [contenteditable]')
  if (event.key === 'Escape') for (const menu of all(floating)) menu.open = false
  if (typing || event.metaKey || event.ctrlKey || event.altKey || one('dialog[open]')) return
  if (began && event.key in places) {
    began = false
    const account = one('.crumb')?.getAttribute('href')
    if (event.key === 'a') location.href = '/'
    else if (account) location.href = account + places[event.key]
    return
  }
  began = event.key === 'g'
  if (event.key === '/') { event.preventDefault(); openSearch() }
  if (event.key === '?') showKeys()
  if (event.key === 't') setTheme(isDark() ? 'light' : 'dark')
})

// Times that are typed are in the reader's zone; they are sent in UTC, as the label says without a script.
for (const input of all('input[data-local-time]')) {
  const two = (number) => String(number).padStart(2, '0')
  if (input.value) {
    const at = new Date(`${input.value}Z`)
    if (!isNaN(at)) input.value = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}T${two(at.getHours())}:${two(at.getMinutes())}`
  }
  for (const word of all('[data-local-word]', input.form)) word.textContent = 'your time'
  input.form.addEventListener('formdata', (event) => {
    const at = new Date(event.formData.get(input.name))
    if (!isNaN(at)) event.formData.set(input.name, at.toISOString().slice(0, 16))
  })
}
// Who types an own value means it.
document.addEventListener('input', (event) => {
  const choice = event.target.dataset?.chooses && document.getElementById(event.target.dataset.chooses)
  if (choice) choice.checked = true
})
