// <ledger-credit-bar> and <ledger-depleted>: an account's credits inside other products' pages. See docs/embedding.md.
// No dependency. Builds no HTML from text and sets no style attribute, so it runs under any Content-Security-Policy that
// lets this file and its requests through.
(() => {
  'use strict'
  if (customElements.get('ledger-credit-bar')) return
  const script = document.currentScript ?? document.querySelector('script[src*="/embed.js"]')
  const HOME = new URL('.', script?.src || location.href).href

  const PAUSE_FIRST = 1000
  const PAUSE_MAX = 30_000
  // A refusal does not pass by itself.
  const PAUSE_REFUSED = 60_000
  // The ledger sends a line each 15 s.
  const SILENT_MAX = 45_000
  // A new token is asked for so long before the end, or a fifth of its time.
  const EARLY = 30_000
  const ASK_MAX = 20_000

  const WORDS = {
    label: 'Credits',
    left: '{left} of {whole} left',
    leftOnly: '{left} left',
    used: '{used} used',
    percent: '{text}, {percent}',
    resets: 'Resets on {date}',
    held: '{held} held for work in progress',
    low: 'Low',
    depleted: 'Depleted',
    limited: 'Limit reached',
    loading: 'Loading credits',
    failed: 'Credits can’t be shown right now.',
    stale: 'Not up to date, trying again',
    depletedTitle: 'You are out of credits',
    limitedTitle: 'You have reached your limit',
  }

  // Amounts: exact decimals with nine places, as the API writes them.
  const ONE = 1_000_000_000n
  const units = (text) => {
    const [, minus, whole, part = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text ?? '0') ?? [, '', '0']
    const value = BigInt(whole) * ONE + BigInt(part.padEnd(9, '0').slice(0, 9))
    return minus ? -value : value
  }
  const exact = (value) => {
    const size = value < 0n ? -value : value
    const part = String(size % ONE).padStart(9, '0').replace(/0+$/, '')
    return `${value < 0n ? '-' : ''}${size / ONE}${part && `.${part}`}`
  }
  const above = (value, least = 0n) => (value > least ? value : least)
  const share = (value, whole) => (whole > 0n ? Number((above(value) * 1_000_000n) / whole) / 1_000_000 : 0)

  // What the elements show, from what a member may see: the own use and limit.
  const ofStanding = (sent) => {
    const limited = sent.limit !== null
    const [counted, held, whole] = [units(sent.counted), units(sent.held), units(sent.limit)]
    const left = above(whole - counted - held)
    return {
      sent,
      unit: sent.unit,
      used: units(sent.used),
      held,
      left: limited ? left : undefined,
      whole,
      parts: limited ? [['left', left], ['held', above(whole - counted) - left]] : [],
      isDepleted: sent.blocked || sent.status === 'depleted',
      isLimit: sent.blocked,
      message: sent.message,
      resets: sent.resets_at,
    }
  }
  // The same from what an admin may see: the account's balance.
  const ofBalance = (sent) => {
    const [settled, bought, over] = [above(units(sent.settled)), units(sent.credit_balance), units(sent.rollover)]
    const held = above(units(sent.held))
    const parts = [['left', above(settled - bought - over)], ['rollover', over], ['bought', bought]]
    // What is held is taken from the parts in their order.
    let taken = held
    for (const part of parts) {
      const from = taken < part[1] ? taken : part[1]
      part[1] -= from
      taken -= from
    }
    return {
      sent,
      unit: sent.unit,
      used: units(sent.used),
      held,
      left: units(sent.available),
      whole: above(units(sent.period_maximum), settled),
      parts: [...parts, ['held', held - taken]],
      isDepleted: sent.status === 'depleted',
      isLow: sent.status === 'low',
      resets: sent.period.ends_at,
    }
  }
  const READ = { standing: ofStanding, balance: ofBalance }

  // Milliseconds that a member token still holds; the clock here may be wrong, and the ledger decides.
  const timeLeft = (token) => {
    try {
      const claims = atob(token.split('_')[1].split('.')[0].replace(/-/g, '+').replace(/_/g, '/'))
      const { from, until } = JSON.parse(claims)
      return Math.min(until * 1000 - Date.now(), (until - from) * 1000)
    } catch {
      return Infinity
    }
  }
  const wait = (time, signal) =>
    new Promise((done) => {
      const timer = setTimeout(done, time)
      signal.addEventListener('abort', () => (clearTimeout(timer), done()), { once: true })
    })
  class Refused extends Error {
    constructor(answer) {
      super(`the ledger answers ${answer.status}`)
      this.status = answer.status
      this.after = Number(answer.headers.get('retry-after')) * 1000 || 0
    }
  }

  // Feed: one stream for all elements that show the same. Each event has whole figures, so a stream that begins again
  // misses nothing.
  const feeds = new Map()
  const callbacks = new WeakMap()
  let known = 0
  const nameOf = (source) => {
    if (typeof source === 'string') return source
    if (!callbacks.has(source)) callbacks.set(source, known++)
    return callbacks.get(source)
  }
  class Feed {
    static of(src, account, source) {
      const name = JSON.stringify([src, account, nameOf(source)])
      if (!feeds.has(name)) feeds.set(name, new Feed(name, src, account, source))
      return feeds.get(name)
    }
    constructor(name, src, account, source) {
      Object.assign(this, { name, account, source, followers: new Set(), fails: 0, refused: false })
      const below = new URL(src, document.baseURI).href.replace(/\/*$/, '')
      this.url = `${below}/v1/accounts/${encodeURIComponent(account)}/stream`
    }
    join(follower) {
      this.followers.add(follower)
      if (this.figures) follower.show(this.figures)
      this.start()
    }
    leave(follower) {
      this.followers.delete(follower)
      if (this.followers.size) return
      this.stop()
      feeds.delete(this.name)
    }
    start() {
      if (this.running || document.hidden) return
      this.running = new AbortController()
      this.run(this.running.signal)
    }
    stop() {
      this.running?.abort()
      this.running = undefined
    }
    tell(what, ...about) {
      for (const follower of [...this.followers]) follower[what](...about)
    }
    async run(signal) {
      while (!signal.aborted) {
        let pause = 0
        try {
          await this.follow(signal)
        } catch (error) {
          if (signal.aborted) return
          pause = this.failed(error)
        }
        if (pause) await wait(pause, signal)
      }
    }
    failed(error) {
      this.fails += 1
      const { status } = error
      const asks = typeof this.source !== 'string'
      if (status === 401) {
        this.token = undefined
        // A callback has another one at once; the page has to set an attribute, which makes another feed.
        if (!asks) this.tell('wantToken')
        const again = asks && !this.refused
        this.refused = true
        if (again) return 0
      }
      this.tell('fail', error)
      if (status === 401 ? !asks : status >= 400 && status < 500 && status !== 429) return PAUSE_REFUSED
      const pause = Math.min(PAUSE_FIRST * 2 ** (this.fails - 1), PAUSE_MAX)
      return Math.max(pause * (0.75 + Math.random() / 2), error.after ?? 0)
    }
    async ask() {
      if (this.token && Date.now() < this.askAt) return this.token
      let token = this.source
      if (typeof token !== 'string') {
        let timer
        const late = new Promise((_, no) => (timer = setTimeout(no, ASK_MAX, new Error('getToken took too long'))))
        token = await Promise.race([token({ account: this.account }), late]).finally(() => clearTimeout(timer))
      }
      if (!token) throw new Error('there is no token')
      const left = timeLeft(token)
      // One that has ended by the clock here is tried all the same.
      this.askAt = left > 0 ? Date.now() + Math.max(left - Math.min(EARLY, left / 5), PAUSE_FIRST) : Infinity
      return (this.token = token)
    }
    async follow(signal) {
      const token = await this.ask()
      if (signal.aborted) return
      const round = new AbortController()
      const end = () => round.abort()
      let silent
      const heard = () => {
        clearTimeout(silent)
        silent = setTimeout(() => round.abort(new Error('silence')), SILENT_MAX)
      }
      signal.addEventListener('abort', end)
      let renew
      if (this.askAt < Infinity) renew = setTimeout(() => this.renew(end), this.askAt - Date.now())
      heard()
      try {
        const headers = { authorization: `Bearer ${token}`, accept: 'text/event-stream' }
        const asked = { headers, signal: round.signal, credentials: 'omit', cache: 'no-store' }
        const answer = await fetch(this.url, asked)
        if (!answer.ok) throw new Refused(answer)
        await this.read(answer.body.pipeThrough(new TextDecoderStream()).getReader(), heard)
        // The ledger has ended it: its token has ended, or it was long enough.
        if (this.fails) throw new Error('the stream ended')
        this.fails = 1
      } catch (error) {
        if (!(round.signal.aborted && round.signal.reason?.message !== 'silence')) throw error
      } finally {
        clearTimeout(silent)
        clearTimeout(renew)
        signal.removeEventListener('abort', end)
        round.abort()
      }
    }
    // The token is about to end: the stream begins again with the next one. An attribute is the page's to set.
    renew(end) {
      if (typeof this.source === 'string') {
        this.tell('wantToken')
        return
      }
      this.token = undefined
      end()
    }
    async read(reader, heard) {
      let text = ''
      for (;;) {
        const { value, done } = await reader.read()
        if (done) return
        heard()
        const blocks = (text + value).split('\n\n')
        text = blocks.pop()
        for (const block of blocks) this.take(block)
      }
    }
    take(block) {
      let [event, data] = ['message', '']
      for (const line of block.split('\n')) {
        if (line.startsWith('event:')) event = line.slice(6).trim()
        if (line.startsWith('data:')) data += line.slice(5)
      }
      if (!(event in READ)) return
      this.fails = 0
      this.refused = false
      this.figures = READ[event](JSON.parse(data))
      this.tell('show', this.figures)
    }
  }
  document.addEventListener('visibilitychange', () => {
    for (const feed of feeds.values()) document.hidden ? feed.stop() : feed.start()
  })

  const DARK = `
    --back: var(--ledger-background, #131519); --edge: var(--ledger-border, #24272e);
    --text: var(--ledger-text, #eceef2); --quiet: var(--ledger-muted, #9aa1af);
    --track: var(--ledger-track, #2b2f37); --of-left: var(--ledger-accent, #7d75ff);
    --of-rollover: var(--ledger-rollover, #2cc0b0); --of-bought: var(--ledger-bought, #ea64ad);
    --of-held: var(--ledger-held, #767d8c); --low: var(--ledger-low, #f2b64b); --low-back: #2c210d;
    --gone: var(--ledger-depleted, #ff8088); --gone-back: #331619;`
  const STYLE = `
    :host {
      --back: var(--ledger-background, #fff); --edge: var(--ledger-border, #e5e7ec);
      --text: var(--ledger-text, #14161b); --quiet: var(--ledger-muted, #575e6c);
      --track: var(--ledger-track, #e6e8ed); --of-left: var(--ledger-accent, #5b52e6);
      --of-rollover: var(--ledger-rollover, #14a294); --of-bought: var(--ledger-bought, #d34694);
      --of-held: var(--ledger-held, #a4a9b8); --low: var(--ledger-low, #8a5100); --low-back: #fdf1da;
      --gone: var(--ledger-depleted, #b4202f); --gone-back: #fdebec;
      display: block; color: var(--text);
      font: 14px/20px var(--ledger-font, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif);
      font-variant-numeric: tabular-nums;
    }
    @media (prefers-color-scheme: dark) { :host(:not([theme="light"])) { ${DARK} } }
    :host([theme="dark"]) { ${DARK} }
    :host([hidden]), [hidden] { display: none !important; }
    * { box-sizing: border-box; margin: 0; }
    .card { padding: 16px; border: 1px solid var(--edge); border-radius: var(--ledger-radius, 10px); background: var(--back); }
    .top { display: flex; align-items: center; gap: 8px; min-height: 22px; color: var(--quiet); font-size: 13px; font-weight: 500; }
    .top > :first-child { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .badge { padding: 0 8px; border-radius: 11px; font-size: 12px; line-height: 22px; font-weight: 600; }
    .figure { min-height: 30px; font-size: 22px; line-height: 30px; font-weight: 620; letter-spacing: -.015em; overflow-wrap: anywhere; }
    .bar { height: var(--ledger-bar-height, 10px); margin: 8px 0; border-radius: 999px; overflow: hidden; background: var(--track); }
    svg { display: block; width: 100%; height: 100%; }
    .of-left { fill: var(--of-left); } .of-rollover { fill: var(--of-rollover); } .of-bought { fill: var(--of-bought); } .of-held { fill: var(--of-held); }
    .note { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px; min-height: 20px; color: var(--quiet); font-size: 13px; }
    :host([state="loading"]) .figure { height: 30px; overflow: hidden; font-size: 0; }
    :host([state="loading"]) .figure::before { content: ""; display: block; width: 60%; max-width: 200px; height: 18px; margin: 6px 0; border-radius: 4px; background: var(--track); }
    :host([state="error"]) .figure { color: var(--quiet); font-size: 14px; font-weight: 500; letter-spacing: 0; }
    :host([state="low"]) .of-left { fill: var(--low); }
    :host([state="low"]) .badge { color: var(--low); background: var(--low-back); }
    :host([state="depleted"]) .badge { color: var(--gone); background: var(--gone-back); }
    :host([state="depleted"]) .figure { color: var(--gone); }
    :host([state="depleted"]) .bar { background: var(--gone-back); box-shadow: inset 0 0 0 1px var(--gone); }
    .alert { display: flex; gap: 12px; padding: 14px 16px; border: 1px solid var(--gone); border-radius: var(--ledger-radius, 10px); background: var(--gone-back); }
    .dot { flex: none; width: 10px; height: 10px; margin-top: 5px; border-radius: 50%; background: var(--gone); }
    .title { color: var(--gone); font-weight: 620; }
    @media (prefers-reduced-motion: no-preference) {
      rect { transition: x .4s ease-out, width .4s ease-out; }
      :host([state="depleted"]) .bar, .dot { animation: pulse 1.8s ease-in-out infinite; }
      :host([state="loading"]) .figure::before { animation: fade 1.6s ease-in-out infinite; }
    }
    @keyframes pulse { 50% { opacity: .45; } }
    @keyframes fade { 50% { opacity: .5; } }`
  let sheet
  const styled = (root) => {
    if (!sheet) {
      sheet = new CSSStyleSheet()
      sheet.replaceSync(STYLE)
    }
    root.adoptedStyleSheets = [sheet]
  }
  const make = (name, attributes = {}, ...children) => {
    const isShape = name === 'svg' || name === 'rect'
    const element = isShape ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name)
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value)
    element.append(...children)
    return element
  }
  // Sets what has changed only, so that a screen reader's place stays.
  const write = (element, text) => {
    if (element.textContent !== text) element.textContent = text
  }

  const ATTRIBUTES = ['account', 'src', 'token', 'theme', 'label', 'low', 'unit']
  const LINKS = ['account', 'src', 'token']
  class Base extends HTMLElement {
    static observedAttributes = [...ATTRIBUTES, 'lang']
    #shown
    #feed
    #figures
    #failure
    #getToken
    #words = {}
    #due = false
    #follower = {
      show: (figures) => this.#show(figures),
      fail: (error) => this.#fail(error),
      wantToken: () => this.#tell('ledger-token', { account: this.account }),
    }
    constructor() {
      super()
      const root = this.attachShadow({ mode: 'open' })
      styled(root)
      this.#shown = this.constructor.build(root)
    }
    connectedCallback() {
      // What was set before this script had come.
      for (const name of [...ATTRIBUTES, 'getToken', 'words']) {
        if (!Object.hasOwn(this, name)) continue
        const value = this[name]
        delete this[name]
        this[name] = value
      }
      if (!this.state) this.#become('loading')
      this.#draw()
      this.#link()
    }
    disconnectedCallback() {
      this.#link()
    }
    attributeChangedCallback(name) {
      if (LINKS.includes(name)) this.#link()
      else if (this.isConnected) this.#draw()
    }
    get state() {
      return this.getAttribute('state')
    }
    // The last figures, as the ledger has sent them.
    get figures() {
      return this.#figures?.sent
    }
    get getToken() {
      return this.#getToken
    }
    set getToken(callback) {
      this.#getToken = callback
      this.#link()
    }
    get words() {
      return { ...WORDS, ...this.#words }
    }
    set words(words) {
      this.#words = words ?? {}
      if (this.isConnected) this.#draw()
    }
    // Several changes at once make one stream.
    #link() {
      if (this.#due) return
      this.#due = true
      queueMicrotask(() => {
        this.#due = false
        const [account, source] = [this.account, this.#getToken ?? this.token]
        const isOn = this.isConnected && account && source
        const feed = isOn ? Feed.of(this.src || HOME, account, source) : undefined
        const left = this.#feed
        if (feed === left) return
        this.#feed = feed
        // Figures of another account must not stay; a new token's come at once.
        if (feed && this.#figures && this.#figures.sent.account_id !== account) {
          this.#figures = undefined
          this.#become('loading')
          this.#draw()
        }
        feed?.join(this.#follower)
        left?.leave(this.#follower)
      })
    }
    #show(figures) {
      const was = this.state
      this.#figures = figures
      this.#failure = undefined
      const { left, whole, isDepleted } = figures
      const least = Number(this.low ?? 20) / 100
      const isLow = figures.isLow || (left !== undefined && share(left, whole) <= least)
      this.#become(isDepleted ? 'depleted' : isLow ? 'low' : 'ready')
      this.#draw()
      this.#tell('ledger-change', figures.sent)
      if (isDepleted && was !== 'depleted') this.#tell('ledger-depleted', figures.sent)
    }
    // What is shown stays, marked as old; without anything to show, it says so.
    #fail(error) {
      this.#failure = error
      if (!this.#figures) this.#become('error')
      this.#draw()
      this.#tell('ledger-error', { status: error.status, message: error.message })
    }
    #become(state) {
      if (this.state !== state) this.setAttribute('state', state)
    }
    #tell(name, detail) {
      this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }))
    }
    #draw() {
      const [figures, language] = [this.#figures, this.#language()]
      const say = (word, values = {}) =>
        String(this.words[word]).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
      const isMoney = (this.unit ?? figures?.unit) === 'usd'
      const money = isMoney ? { style: 'currency', currency: 'USD' } : {}
      const number = new Intl.NumberFormat(language, { ...money, maximumFractionDigits: 2 })
      const amount = (value) =>
        value > 0n && value < ONE / 100n ? `< ${number.format(0.01)}` : number.format(exact(value))
      const day = () => {
        const format = new Intl.DateTimeFormat(language, { day: 'numeric', month: 'long' })
        return say('resets', { date: format.format(new Date(figures.resets)) })
      }
      const { state, label } = this
      this.constructor.draw(this.#shown, { figures, state, label, isOld: !!this.#failure, say, amount, day })
    }
    #language() {
      try {
        return Intl.getCanonicalLocales(this.closest('[lang]')?.lang || [])[0]
      } catch {
        return undefined
      }
    }
  }
  for (const name of ATTRIBUTES) {
    Object.defineProperty(Base.prototype, name, {
      get() {
        return this.getAttribute(name)
      },
      set(value) {
        if (value === null || value === undefined) this.removeAttribute(name)
        else this.setAttribute(name, value)
      },
    })
  }

  class CreditBar extends Base {
    static build(root) {
      const label = make('span', { part: 'label' })
      const badge = make('span', { part: 'badge', class: 'badge' })
      const figure = make('p', { part: 'figure', class: 'figure' })
      const rects = ['left', 'rollover', 'bought', 'held'].map((name) =>
        make('rect', { part: name, class: `of-${name}`, x: 0, y: 0, width: 0, height: 1 }),
      )
      const shape = { viewBox: '0 0 1000 1', preserveAspectRatio: 'none', 'aria-hidden': 'true' }
      const bar = make('div', { part: 'bar', class: 'bar' }, make('svg', shape, ...rects))
      const [note, held] = [make('span', { part: 'note' }), make('span', { part: 'held-note' })]
      const top = make('div', { class: 'top' }, label, badge)
      const notes = make('p', { class: 'note' }, note, held)
      root.append(make('div', { part: 'card', class: 'card' }, top, figure, bar, notes, make('slot')))
      return { label, badge, figure, rects, bar, note, held }
    }
    static draw(shown, { figures, state, label, isOld, say, amount, day }) {
      const { badge, figure, bar } = shown
      const name = label ?? say('label')
      write(shown.label, name)
      badge.hidden = state !== 'low' && state !== 'depleted'
      write(badge, badge.hidden ? '' : say(state === 'low' ? 'low' : figures.isLimit ? 'limited' : 'depleted'))
      figure.setAttribute('aria-busy', String(state === 'loading'))
      const { left, whole = 0n, used, held = 0n, parts = [] } = figures ?? {}
      const isOf = left !== undefined && whole > 0n
      let text = say(state === 'error' ? 'failed' : 'loading')
      if (figures) {
        const word = isOf ? 'left' : left === undefined ? 'used' : 'leftOnly'
        text = say(word, { left: amount(left ?? 0n), whole: amount(whole), used: amount(used) })
        figure.title = exact(left ?? used)
      }
      write(figure, text)
      write(shown.note, isOld && figures ? say('stale') : figures ? day() : '')
      write(shown.held, held > 0n ? say('held', { held: amount(held) }) : '')
      bar.hidden = !!figures && !isOf
      const percent = Math.min(Math.round(share(left ?? 0n, whole) * 100), 100)
      const spoken = {
        role: 'meter',
        'aria-label': name,
        'aria-valuemin': 0,
        'aria-valuemax': 100,
        'aria-valuenow': percent,
        'aria-valuetext': say('percent', { text, percent: `${percent} %` }),
      }
      for (const [key, value] of Object.entries(spoken)) {
        if (isOf) bar.setAttribute(key, value)
        else bar.removeAttribute(key)
      }
      let at = 0
      for (const rect of shown.rects) {
        const part = parts.find(([part]) => part === rect.getAttribute('part'))
        const width = part ? share(part[1], whole) * 1000 : 0
        rect.setAttribute('x', at)
        rect.setAttribute('width', width)
        at += width
      }
    }
  }

  class Depleted extends Base {
    static build(root) {
      const region = make('div', { role: 'alert' })
      const [title, text] = [make('p', { part: 'title', class: 'title' }), make('p', { part: 'text' })]
      const dot = make('span', { part: 'dot', class: 'dot' })
      const card = make('div', { part: 'card', class: 'alert' }, dot, make('div', {}, title, text, make('slot')))
      root.append(region)
      return { region, title, text, card }
    }
    static draw({ region, title, text, card }, { figures, state, label, say, day }) {
      // Only what comes into an alert is read out.
      if (state !== 'depleted') {
        region.replaceChildren()
        return
      }
      write(title, label ?? say(figures.isLimit ? 'limitedTitle' : 'depletedTitle'))
      write(text, figures.message ?? day())
      if (!region.firstChild) region.append(card)
    }
  }

  customElements.define('ledger-credit-bar', CreditBar)
  customElements.define('ledger-depleted', Depleted)
})()
