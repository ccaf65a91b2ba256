#!/usr/bin/env python3
"""Refolds the journal into balances: an auditor's own program, written from schemas/README.md alone.

    curl -H "Authorization: Bearer $KEY" "$LEDGER/v1/audit/events?partition=3" | python3 audit/refold.py

Reads the journal as NDJSON on stdin (any number of partitions, each from offset 0 and in order) and prints every
account's balance as JSON. `--events` prints each record's outcome first, one line a record. Needs Python 3.9 and its
standard library. Amounts are integers of 1e-9, times are integers of microseconds: nothing here is a float.
"""

import json
import os
import re
import sys
import uuid
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

SCHEMAS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "schemas")
OUTPUTS = {"alert.fired.v1.json"}
UNIT = 10**9
SECOND = 10**6
AHEAD_OF_BROKER_MAX = 2 * SECOND
CROSSINGS_MAX = 5_000
OPEN_LOTS_MAX = 10_000
RETURNS_MAX = 50_000
ORG_ALERTS_MAX = 1_000
TURNOVER_MAX = 10**28 * UNIT
NAMESPACE = uuid.UUID("6c656467-6572-5000-8000-637265646974")
TOP_UPS_PER_PERIOD = 10
RETRY_AFTER = (3_600 * SECOND, 4 * 3_600 * SECOND, 24 * 3_600 * SECOND)
RECORD_BYTES_MAX = 65_536
DEPTH_MAX = 8
FOREVER = float("inf")  # compared with, never calculated with
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


# ---- Amounts and times ------------------------------------------------------------------------------------------

def amount(value):
    """Reads "12.5", or a whole number, as units of 1e-9."""
    if isinstance(value, (int, float)):
        return int(value) * UNIT
    whole, _, places = value.lstrip("-").partition(".")
    units = int(whole) * UNIT + int(places.ljust(9, "0") or 0)
    return -units if value.startswith("-") else units


def show(units):
    """Writes units as a decimal without trailing zeros."""
    whole, places = divmod(abs(units), UNIT)
    text = f"{whole}.{places:09d}".rstrip("0").rstrip(".")
    return "-" + text if units < 0 else text


def show_limit(limit):
    return limit if limit == "unlimited" else show(amount(limit))


def half_even(dividend, divisor):
    """Divides two integers, neither below 0."""
    quotient, rest = divmod(dividend, divisor)
    return quotient + (2 * rest > divisor or (2 * rest == divisor and quotient % 2))


TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))\Z", re.ASCII)


def instant(text):
    """Reads RFC 3339 as microseconds since 1970; finer is cut, a leap second is the second after it."""
    found = TIME.match(text)
    if not found:
        raise ValueError(f"not a time: {text}")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    moment = datetime(year, month, day, hour, minute, tzinfo=timezone.utc) + timedelta(seconds=second)
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        moment += -offset if sign == "+" else offset
    return micros(moment) + int((fraction or "")[:6].ljust(6, "0"))


def micros(moment):
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(time):
    return EPOCH + timedelta(microseconds=time)


def show_time(time):
    if time is None or time == FOREVER:
        return None
    text = moment(time).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    fraction = time % SECOND
    if fraction:
        text += f".{fraction:06d}" if fraction % 1000 else f".{fraction // 1000:03d}"
    return text + "Z"


# ---- Schemas ----------------------------------------------------------------------------------------------------

class Schemas:
    """Judges records by the schema files beside this program; knows the keywords that they use."""

    def __init__(self):
        self.files, self.rules = {}, {}

    def errors(self, event_type, event):
        """Returns none where there is no such type, else what is wrong with the event."""
        name = event_type[len("ledger."):] + ".json"
        is_name = re.fullmatch(r"[a-z_.]+\.v\d+\.json", name) and name not in OUTPUTS
        if not is_name or not os.path.exists(os.path.join(SCHEMAS, name)):
            return None
        return self.judge({"$ref": name}, name, event, "event")

    def follow(self, ref, file):
        name, _, path = ref.partition("#")
        name = name or file
        if name not in self.files:
            with open(os.path.join(SCHEMAS, name), encoding="utf-8") as source:
                self.files[name] = json.load(source)
        schema = self.files[name]
        for part in filter(None, path.split("/")):
            schema = schema[part]
        return schema, name

    def judge(self, schema, file, value, path):
        """Lists what is wrong; stops at the first for a keyword."""
        if "$ref" in schema:
            target, target_file = self.follow(schema["$ref"], file)
            wrong = self.judge(target, target_file, value, path)
            if wrong:
                return wrong
        for keyword, rule in schema.items():
            check = getattr(self, "check_" + keyword, None)
            if check and not check(rule, file, value, path, schema):
                return [f"{path}: {keyword} {json.dumps(rule)[:80]}"]
        return self.parts(schema, file, value, path)

    def parts(self, schema, file, value, path):
        if isinstance(value, dict):
            known = schema.get("properties", {})
            other = schema.get("additionalProperties", True)
            for key, item in value.items():
                rule = known.get(key, other)
                if rule is False:
                    return [f"{path}.{key}: unknown"]
                wrong = rule is not True and self.judge(rule, file, item, f"{path}.{key}")
                if "propertyNames" in schema:
                    wrong = wrong or self.judge(schema["propertyNames"], file, key, f"{path}.{key}")
                if wrong:
                    return wrong
        if isinstance(value, list) and "items" in schema:
            for index, item in enumerate(value):
                wrong = self.judge(schema["items"], file, item, f"{path}.{index}")
                if wrong:
                    return wrong
        return []

    TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}

    def check_type(self, rule, _file, value, _path, _schema):
        for name in rule if isinstance(rule, list) else [rule]:
            # JSON Schema counts 1200.0 among the integers.
            if name == "integer" and (type(value) is int or type(value) is float and value.is_integer()) or name != "integer" and isinstance(value, self.TYPES[name]):
                return True
        return False

    def check_required(self, rule, _file, value, _path, _schema):
        return not isinstance(value, dict) or all(key in value for key in rule)

    def check_enum(self, rule, _file, value, _path, _schema):
        return any(value == one and type(value) is type(one) for one in rule)

    def check_const(self, rule, _file, value, _path, _schema):
        return value == rule and type(value) is type(rule)

    def check_pattern(self, rule, _file, value, _path, _schema):
        if not isinstance(value, str):
            return True
        if rule not in self.rules:
            # $ is the very end in JSON Schema; in Python it also stands before a last line break.
            self.rules[rule] = re.compile(rule[:-1] + r"\Z" if rule.endswith("$") else rule)
        return bool(self.rules[rule].search(value))

    def check_minLength(self, rule, _file, value, _path, _schema):
        return not isinstance(value, str) or len(value) >= rule

    def check_maxLength(self, rule, _file, value, _path, _schema):
        return not isinstance(value, str) or len(value) <= rule

    def check_maxBytes(self, rule, _file, value, _path, _schema):
        return not isinstance(value, str) or len(value.encode()) <= rule

    def check_minimum(self, rule, _file, value, _path, _schema):
        return type(value) not in (int, float) or value >= rule

    def check_maximum(self, rule, _file, value, _path, _schema):
        return type(value) not in (int, float) or value <= rule

    def check_maxProperties(self, rule, _file, value, _path, _schema):
        return not isinstance(value, dict) or len(value) <= rule

    def check_minItems(self, rule, _file, value, _path, _schema):
        return not isinstance(value, list) or len(value) >= rule

    def check_maxItems(self, rule, _file, value, _path, _schema):
        return not isinstance(value, list) or len(value) <= rule

    def check_uniqueItems(self, _rule, _file, value, _path, _schema):
        return not isinstance(value, list) or all(item not in value[:at] for at, item in enumerate(value))

    def check_anyOf(self, rule, file, value, path, _schema):
        return any(not self.judge(one, file, value, path) for one in rule)

    def check_not(self, rule, file, value, path, _schema):
        return bool(self.judge(rule, file, value, path))

    def check_if(self, rule, file, value, path, schema):
        holds = not self.judge(rule, file, value, path)
        return not self.judge(schema.get("then" if holds else "else", {}), file, value, path)


def beyond_schemas(event):
    """Raises where a rule is broken that JSON Schema can't say."""
    data = event["data"]
    for time in (event["time"], event["recordedat"], data.get("effective_at"), data.get("expires_at"), data.get("advance_to")):
        if time is not None:
            instant(time)
    if data.get("effective_at") and data.get("expires_at") and instant(data["expires_at"]) <= instant(data["effective_at"]):
        raise ValueError("expires_at is not after effective_at")
    plan = data.get("plan", {})
    if plan.get("timezone"):
        ZoneInfo(plan["timezone"])
    if plan.get("anchor"):
        instant(plan["anchor"])


def depth(text):
    deepest = level = 0
    for bracket in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        if bracket in "{[":
            level += 1
            deepest = max(deepest, level)
        elif bracket in "}]":
            level -= 1
    return deepest


def murmur2(key):
    """Hashes as Kafka's Java client does."""
    mask, mixer = 0xFFFFFFFF, 0x5BD1E995
    value = (0x9747B28C ^ len(key)) & mask
    whole = len(key) // 4 * 4
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * mixer & mask
        word = (word ^ word >> 24) * mixer & mask
        value = value * mixer & mask ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * mixer & mask
    value = (value ^ value >> 13) * mixer & mask
    return value ^ value >> 15


# ---- Periods ----------------------------------------------------------------------------------------------------

class Schedule:
    """Boundaries counted from an anchor, on the calendar and clock of a time zone."""

    def __init__(self, cycle, anchor, zone):
        self.cycle, self.anchor, self.zone = cycle, anchor, zone
        self.tz = ZoneInfo(zone)

    def __eq__(self, other):
        return (self.cycle, self.anchor, self.zone) == (other.cycle, other.anchor, other.zone)

    def wall(self, time):
        return moment(time).astimezone(self.tz).replace(tzinfo=None)

    def boundary(self, n):
        """Returns boundary n; before all times or after them, infinity of that sign."""
        if n == 0:
            return self.anchor
        try:
            time = self.first_instant(self.stepped(n))
        except (OverflowError, ValueError):
            return FOREVER if n > 0 else -FOREVER
        return max(time, self.anchor) if n > 0 else min(time, self.anchor)

    def stepped(self, n):
        wall = self.wall(self.anchor)
        if self.cycle in ("daily", "weekly"):
            return wall + timedelta(days=n * (7 if self.cycle == "weekly" else 1))
        year, month = divmod(wall.year * 12 + wall.month - 1 + n * (12 if self.cycle == "yearly" else 1), 12)
        for day in range(wall.day, 27, -1):
            try:
                return wall.replace(year=year, month=month + 1, day=day)
            except ValueError:
                if not 1 <= year <= 9999:
                    raise
        return wall.replace(year=year, month=month + 1)

    def first_instant(self, wall):
        """Returns the earlier of two instants that show this, or the first after the gap that leaves it out."""
        early = micros(wall.replace(tzinfo=timezone.utc) - self.tz.utcoffset(wall.replace(fold=0)))
        if self.wall(early) == wall:
            return early
        low = micros(wall.replace(tzinfo=timezone.utc) - self.tz.utcoffset(wall.replace(fold=1))) // SECOND
        high = -(-early // SECOND)
        while high - low > 1:
            middle = (low + high) // 2
            if self.wall(middle * SECOND) > wall:
                high = middle
            else:
                low = middle
        return high * SECOND

    def index_at(self, time):
        """Returns the greatest n whose boundary is not after the time."""
        days = {"daily": 1, "weekly": 7, "monthly": 31, "yearly": 366}[self.cycle]
        n = (time - self.anchor) // (days * 86_400 * SECOND)
        while self.boundary(n) > time:
            n -= 1
        while self.boundary(n + 1) <= time:
            n += 1
        return n


class Period:
    def __init__(self, schedule, shift, number, start):
        self.schedule, self.shift = schedule, shift
        self.index, self.start, self.end = number + shift, start, schedule.boundary(number + 1)

    @staticmethod
    def containing(schedule, time):
        number = schedule.index_at(time)
        return Period(schedule, 0, number, schedule.boundary(number))

    def following(self, schedule):
        """Returns the period that starts where this one ends, under this schedule or another."""
        number = schedule.index_at(self.end)
        shift = self.shift if schedule == self.schedule else self.index + 1 - number
        return Period(schedule, shift, number, self.end)


# ---- Accounts ---------------------------------------------------------------------------------------------------

PRIORITY = {"rollover": 10, "plan": 20, "purchase": 40, "top_up": 40}
PAID = ("purchase", "top_up")


def can_name_a_lot(text):
    """Says whether an id has the shape of ids that the outside world makes."""
    control = any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    return 0 < len(text.encode()) <= 256 and text == text.strip() and not control


class Lot:
    def __init__(self, grant_id, source, units, effective, expires=None, priority=None):
        self.grant_id, self.source, self.amount, self.remaining = grant_id, source, units, units
        self.priority = PRIORITY.get(source, 30) if priority is None else priority
        self.effective, self.expires = effective, expires
        self.started = self.closed = False
        self.price = None
        self.drawn = self.lapsed = self.refunded = 0

    def give(self, taking, units):
        """Gives up to so many units to a taking and returns how many."""
        part = min(self.remaining, units)
        if part:
            self.remaining -= part
            self.drawn += part
            taking.draws.append((self, part))
        return part

    def refill(self, units):
        """Takes back what it gave and returns what it has no room for: a plan's lot holds its allowance at most."""
        before = self.remaining
        self.drawn -= units
        self.remaining = self.allowance_left() if self.source == "plan" else before + units
        return before + units - self.remaining

    def allowance_left(self):
        return max(self.amount - self.drawn, 0)

    def burn_order(self):
        expires = FOREVER if self.expires is None else self.expires
        return (self.priority, expires, self.source in PAID, self.effective, self.grant_id)

    def shown(self):
        price = {} if self.price is None else {"price": self.price}
        return {
            "grant_id": self.grant_id, "source": self.source, **price,
            "category": "paid" if self.source in PAID else "promotional",
            "amount": show(self.amount), "remaining": show(self.remaining), "priority": self.priority,
            "effective_at": show_time(self.effective), "expires_at": show_time(self.expires),
        }


class Taking:
    """What one event took: draws on lots, and what it still owes."""

    def __init__(self, period, units=0, user=None):
        self.period, self.units, self.user = period, units, user
        self.draws, self.owed, self.reversed = [], 0, False


class TopUps:
    """Auto top-up: its settings and how it goes."""

    def __init__(self, account_id):
        self.account_id, self.settings, self.version, self.asked = account_id, None, 0, 0
        self.open, self.failures, self.retry, self.refused = None, 0, None, set()
        self.period, self.count, self.total = None, 0, 0

    def derived(self, *name):
        parts = (str(part).replace("%", "%25").replace("/", "%2F") for part in name)
        return str(uuid.uuid5(NAMESPACE, "/".join(parts)))

    def wants(self, account):
        """Returns (amount, payment method) where an attempt is to start now, else None."""
        settings = self.settings
        if self.open or not settings or not settings.get("enabled") or self.failures > len(RETRY_AFTER):
            return None
        figure = account.settled() if settings.get("basis") == "available_balance" else account.credit_balance()
        if figure > amount(settings["threshold"]) or self.retry is not None and self.retry > account.now:
            return None
        count, total = (self.count, self.total) if self.period == account.period.index else (0, 0)
        units, most = amount(settings["amount"]), settings.get("max_amount_per_period")
        if count >= (settings.get("max_per_period") or TOP_UPS_PER_PERIOD):
            return None
        if most is not None and total + units > amount(most):
            return None
        return units, settings["payment_method"]

    def start_afresh(self):
        self.failures, self.retry = 0, None

    def succeed(self, attempt, units, period):
        if self.open == attempt:
            self.open = None
        if self.period != period:
            self.period, self.count, self.total = period, 0, 0
        self.count += 1
        self.total += units
        self.start_afresh()


class Rejected(Exception):
    """The event has no effect; the message is the reason."""


class Plan:
    def __init__(self, body, anchor):
        given = {key: value for key, value in body.items() if value is not None}
        anchor = instant(given["anchor"]) if "anchor" in given else anchor
        self.schedule = Schedule(given["cycle"], anchor, given.get("timezone", "UTC"))
        self.allowance = amount(given["allowance"])
        rollover = given.get("rollover", {"mode": "none"})
        cap = rollover.get("cap")
        self.mode, self.cap = rollover["mode"], self.allowance if cap is None else amount(cap)
        self.packs_end = given.get("pack_expiry", "never") == "period_end"

    def rolls_over(self, unused):
        return {"none": 0, "capped": min(unused, self.cap), "unlimited": unused}[self.mode]


class Account:
    def __init__(self, account_id, data, time):
        self.top_ups, self.payments, self.disputes, self.refunds = TopUps(account_id), {}, {}, {}
        self.closed, self.own_limits, self.calls = None, {}, set()
        per_unit = data.get("usd_per_unit") or ("1" if data.get("unit") == "usd" else None)
        self.usd_per_unit = None if per_unit is None else amount(per_unit)
        self.now = time
        self.test = data.get("clock") == "test"
        self.forgives = data.get("overdraft") == "forgive_at_reset"
        self.plan, self.waiting = Plan(data["plan"], time), None
        self.period = Period.containing(self.plan.schedule, time)
        self.lots, self.opened, self.owing, self.usage = {}, {}, [], {}
        self.used, self.maximum, self.booked, self.turnover, self.users = 0, 0, 0, 0, {}
        self.alerts = set()
        self.arrives(self.plan_lot(time))

    # Figures

    def overdraft(self):
        return sum(taking.owed for taking in self.owing)

    def open(self):
        return list(self.opened.values())

    def drawable(self):
        return sorted((lot for lot in self.open() if lot.started and lot.remaining), key=Lot.burn_order)

    def settled(self):
        return sum(lot.remaining for lot in self.open() if lot.started) - self.overdraft()

    def credit_balance(self):
        return sum(lot.remaining for lot in self.open() if lot.started and lot.source in PAID)

    def shown(self):
        rolled = sum(lot.remaining for lot in self.open() if lot.source == "rollover")
        return {
            "settled": show(self.settled()), "credit_balance": show(self.credit_balance()), "overdraft": show(self.overdraft()),
            "allowance": show(self.plan.allowance), "rollover": show(rolled), "used": show(self.used), "period_maximum": show(self.maximum),
            "period": {"index": self.period.index, "starts_at": show_time(self.period.start), "ends_at": show_time(self.period.end)},
            "ledger_time": show_time(self.now),
            "users": {user: show(used) for user, used in sorted(self.users.items()) if used},
            "own_limits": dict(sorted(self.own_limits.items())),
            "lots": [lot.shown() for lot in sorted(self.open(), key=Lot.burn_order) if lot.remaining],
        }

    # Giving and taking

    def plan_lot(self, effective):
        return Lot(f"plan:{self.period.index}", "plan", self.plan.allowance, effective, self.period.end)

    def arrives(self, lot):
        """A new lot: from now on, or from when it starts."""
        self.lots[lot.grant_id] = self.opened[lot.grant_id] = lot
        if lot.effective <= self.now:
            self.starts(lot)

    def starts(self, lot):
        lot.started = True
        self.maximum += lot.remaining
        self.book(lot.remaining)
        self.repay()

    def book(self, units):
        self.booked += units
        self.turnover += abs(units)

    def repay(self):
        """Whatever is drawable repays what is owed, oldest first."""
        self.owing = [taking for taking in self.owing if taking.owed]
        for lot in self.drawable() if self.owing else []:
            for taking in self.owing:
                taking.owed -= lot.give(taking, taking.owed)

    def take(self, taking, units):
        self.book(-units)
        for lot in self.drawable():
            units -= lot.give(taking, units)
        taking.owed = units
        if units:
            self.owing.append(taking)

    def close(self, lot):
        lot.closed = True
        del self.opened[lot.grant_id]
        if lot.started:
            self.book(-lot.remaining)
        lot.lapsed += lot.remaining
        lot.remaining = 0

    # Crossing

    def crossings(self):
        """Yields (instant, rank, burn order, lot) of what lies ahead: ends, the boundary, starts."""
        for lot in self.open():
            if lot.expires is not None and (lot.expires != self.period.end or self.closed is not None):
                yield (lot.expires, 0, lot.burn_order(), lot)
            if not lot.started:
                yield (lot.effective, 2, lot.burn_order(), lot)
        if self.closed is None:
            yield (self.period.end, 1, (), None)

    def advance(self, time):
        """Crosses everything up to the time, in order."""
        while True:
            at, rank, _, lot = min(self.crossings(), key=lambda crossing: crossing[:3], default=(FOREVER, 1, (), None))
            if at > time or at == FOREVER:
                break
            self.now = at
            (self.close, lambda _: self.boundary(), self.starts)[rank](lot)
        self.now = max(self.now, time)

    def jumps(self, time):
        """Says whether a test clock would cross too much at once."""
        count = sum(at <= time for at, rank, _, lot in self.crossings() if rank != 1 and lot.remaining)
        period = self.period
        while self.closed is None and period.end <= time and count <= CROSSINGS_MAX:
            count += 1
            period = period.following((self.waiting or self.plan).schedule)
        return count > CROSSINGS_MAX

    def boundary(self):
        ending = self.period
        kept = [lot for lot in self.open() if lot.source in ("plan", "rollover")]
        rolled = self.plan.rolls_over(sum(lot.remaining for lot in kept))
        for lot in kept:
            self.close(lot)
        plan = self.waiting or self.plan
        self.period = ending.following(plan.schedule)
        if rolled:
            lot = Lot(f"rollover:{self.period.index}", "rollover", rolled, ending.end, self.period.end)
            lot.started = True
            self.lots[lot.grant_id] = self.opened[lot.grant_id] = lot
            self.book(rolled)
        for lot in sorted(self.open(), key=Lot.burn_order):
            if lot.expires == ending.end:
                self.close(lot)
        if self.forgives:
            self.book(self.overdraft())
            for taking in self.owing:
                taking.owed = 0
        self.plan, self.waiting = plan, None
        self.used, self.users, self.maximum = 0, {}, self.settled()
        self.arrives(self.plan_lot(ending.end))

    # Events

    ONLY_BEFORE_THE_CLOSING = {
        "usage.recorded", "credits.granted", "account.changed", "plan.changed", "limits.set", "user_limit.set",
        "org_alert.set", "org_alert.removed", "user_alert.set", "auto_top_up.set",
    }
    NEVER_ONCE_CLOSED = {"account.closed", "top_up.started", "top_up.refused"}

    def is_closed_to(self, event, kind):
        """Says whether the account is closed to an event: what was recorded before the closing was on its way."""
        if self.closed is None:
            return False
        late = kind in self.ONLY_BEFORE_THE_CLOSING and instant(event["recordedat"]) >= self.closed
        return kind in self.NEVER_ONCE_CLOSED or late and event["data"].get("held") is None

    def account_closed(self, event, data):
        self.closed = self.now

    def account_changed(self, event, data):
        if data.get("overdraft"):
            self.forgives = data["overdraft"] == "forgive_at_reset"

    def plan_changed(self, event, data):
        plan, self.waiting = Plan(data["plan"], self.plan.schedule.anchor), None
        if data.get("at") == "next_period":
            self.waiting = plan
            return
        if plan.schedule != self.plan.schedule:
            # The open period keeps its schedule and what is given for it.
            self.plan.packs_end, self.waiting = plan.packs_end, plan
            return
        self.plan = plan
        lot = self.lots[f"plan:{self.period.index}"]
        before, lot.amount = lot.remaining, plan.allowance
        lot.remaining = lot.allowance_left()
        moved = lot.remaining - before
        self.maximum += moved
        self.book(moved)
        self.repay()

    def clock_advanced(self, event, data):
        pass

    def period_reset(self, event, data):
        if data["index"] > self.period.index:
            raise Rejected("period_not_begun")

    def limits_set(self, event, data):
        if data.get("custom") is not None:
            self.own_limits = {user: show_limit(limit) for user, limit in data["custom"].items()}

    def user_limit_set(self, event, data):
        self.own_limits.pop(data["user_id"], None)
        if data.get("limit") is not None:
            self.own_limits[data["user_id"]] = show_limit(data["limit"])

    def user_alert_set(self, event, data):
        pass

    def org_alert_set(self, event, data):
        if len(self.alerts) >= ORG_ALERTS_MAX and data["alert_id"] not in self.alerts:
            raise Rejected("too_many_alerts")
        self.alerts.add(data["alert_id"])

    def org_alert_removed(self, event, data):
        if data["alert_id"] not in self.alerts:
            raise Rejected("alert_unknown")
        self.alerts.remove(data["alert_id"])

    def usage_recorded(self, event, data):
        units, user = amount(data["credits"]), data.get("user_id")
        taking = Taking(self.period.index, units, user)
        self.take(taking, units)
        self.usage[(event["source"], event["id"])] = taking
        if data.get("call_id") is not None:
            self.calls.add(data["call_id"])
        self.used += units
        if user is not None:
            self.users[user] = self.users.get(user, 0) + units

    def usage_reversed(self, event, data):
        taking = self.usage.get((data["source"], data["event_id"]))
        if taking is None:
            raise Rejected("event_unknown")
        back = self.undo(taking)
        if taking.period == self.period.index:
            self.used -= taking.units
            if taking.user is not None:
                self.users[taking.user] -= taking.units
        else:
            self.maximum += back
        self.repay()

    def undo(self, taking):
        if taking.reversed:
            raise Rejected("already_reversed")
        if len(taking.draws) > RETURNS_MAX:
            raise Rejected("too_many_lots")
        taking.reversed = True
        back, taking.owed = taking.owed, 0
        too_much = 0
        for lot, part in taking.draws:
            if lot.closed:
                lot.lapsed += part
            else:
                too_much += lot.refill(part)
                back += part
        self.book(back)
        self.book(-too_much)
        self.maximum -= too_much
        return back

    def new_id(self, lot_id):
        if lot_id.startswith(("plan:", "rollover:")):
            raise Rejected("grant_reserved")
        if lot_id in self.lots or lot_id in self.payments:
            raise Rejected("grant_exists")

    def has_room(self):
        if sum(lot.remaining > 0 for lot in self.open()) >= OPEN_LOTS_MAX:
            raise Rejected("too_many_lots")

    def credits_granted(self, event, data):
        self.new_id(data["grant_id"])
        effective = instant(data["effective_at"]) if data.get("effective_at") else self.now
        expires = instant(data["expires_at"]) if data.get("expires_at") else None
        if expires is not None and expires <= self.now:
            raise Rejected("grant_expired")
        self.has_room()
        self.arrives(Lot(data["grant_id"], data["source"], amount(data["amount"]), effective, expires, data.get("priority")))

    def grant_voided(self, event, data):
        lot = self.lots.get(data["grant_id"])
        if lot is None:
            raise Rejected("grant_unknown")
        if lot.source in ("plan", "rollover") or lot.closed:
            raise Rejected("grant_not_voidable")
        if lot.started:
            self.maximum -= lot.remaining
        self.close(lot)

    def credits_adjusted(self, event, data):
        units = amount(data["amount"])
        if units > 0:
            if not can_name_a_lot(event["id"]):
                raise Rejected("grant_id_malformed")
            self.new_id(event["id"])
            self.has_room()
            self.arrives(Lot(event["id"], "adjustment", units, self.now))
        else:
            self.take(Taking(self.period.index), -units)
            self.maximum += units

    def paid_lot(self, lot_id, source, data):
        expires = self.period.end if self.plan.packs_end else None
        self.payments[data["payment_id"]] = lot = Lot(lot_id, source, amount(data["amount"]), self.now, expires)
        lot.price = self.price(data)
        self.arrives(lot)

    def price(self, data):
        """Returns the money paid: as told, else at the account's value of a unit, as far as 96 bits hold it."""
        price = data.get("price")
        if price is not None:
            return {"amount": show(amount(price["amount"])), "currency": price["currency"]}
        if self.usd_per_unit is None:
            return None
        dollars = half_even(amount(data["amount"]) * self.usd_per_unit, UNIT)
        return {"amount": show(dollars), "currency": "usd"} if dollars < 2**96 else None

    def credits_purchased(self, event, data):
        payment = data["payment_id"]
        if payment in self.payments:
            raise Rejected("payment_exists")
        self.new_id(payment)
        self.top_ups.start_afresh()
        self.paid_lot(payment, "purchase", data)

    def credits_topped_up(self, event, data):
        attempt, known = data["attempt_id"], self.lots.get(data["attempt_id"])
        if data["payment_id"] in self.payments or known and known.source in PAID:
            raise Rejected("payment_exists")
        self.new_id(attempt)
        self.new_id(data["payment_id"])
        self.top_ups.succeed(attempt, amount(data["amount"]), self.period.index)
        self.paid_lot(attempt, "top_up", data)

    def auto_top_up_set(self, event, data):
        self.top_ups.settings = data
        self.top_ups.version += 1
        self.top_ups.start_afresh()

    def top_up_started(self, event, data):
        top_ups = self.top_ups
        if data["attempt_id"] != top_ups.derived("attempt", top_ups.account_id, top_ups.asked + 1):
            raise Rejected("attempt_out_of_order")
        top_ups.asked += 1
        if top_ups.wants(self) != (amount(data["amount"]), data["payment_method"]):
            raise Rejected("top_up_not_due")
        top_ups.open = data["attempt_id"]

    def top_up_failed(self, event, data):
        top_ups = self.top_ups
        if top_ups.open != data["attempt_id"]:
            raise Rejected("attempt_not_open")
        tries = top_ups.failures
        top_ups.retry = self.now + RETRY_AFTER[tries] if tries < len(RETRY_AFTER) else None
        top_ups.open, top_ups.failures = None, tries + 1

    def top_up_refused(self, event, data):
        pass  # it tells of a brake, and moves nothing

    def credits_refunded(self, event, data):
        self.refunds[(event["source"], event["id"])] = (data["payment_id"], *self.take_back(data))

    def refund_failed(self, event, data):
        refunded = self.top_ups.derived("refunded", self.top_ups.account_id, data["refund_id"])
        self.give_back(self.refunds.get(("urn:ledger:api", refunded)), data["payment_id"], "refund_unknown")

    def take_back(self, data):
        """Takes a payment back and returns what was taken, its lot, and what of it had lapsed."""
        lot, units = self.payments.get(data["payment_id"]), amount(data["amount"])
        if lot is None:
            raise Rejected("payment_unknown")
        if lot.refunded + units > lot.amount:
            raise Rejected("refund_exceeds_payment")
        lot.refunded += units
        own = min(units, lot.remaining)
        lot.remaining -= own
        self.book(-own)
        gone = min(units - own, lot.lapsed)
        lot.lapsed -= gone
        spent = units - own - gone
        taking = Taking(self.period.index, units)
        if spent:
            self.take(taking, spent)
        if own:
            taking.draws.append((lot, own))
        self.maximum -= own + spent
        return taking, lot, gone

    def dispute_opened(self, event, data):
        self.disputes[(event["source"], event["id"])] = (data["payment_id"], *self.take_back(data))

    def dispute_won(self, event, data):
        opened = self.top_ups.derived("dispute_opened", self.top_ups.account_id, data["dispute_id"])
        self.give_back(self.disputes.get(("urn:ledger:disputes", opened)), data["payment_id"], "dispute_unknown")

    def give_back(self, taken, payment_id, unknown):
        """Undoes what took a payment back."""
        payment, taking, lot, gone = taken or (None, None, None, None)
        if payment != payment_id:
            raise Rejected(unknown)
        self.maximum += self.undo(taking)
        lot.refunded -= taking.units
        lot.lapsed += gone
        self.repay()


# ---- The fold ---------------------------------------------------------------------------------------------------

AMOUNTS = {
    "amount", "credits", "allowance", "cap", "overage_limit", "usd_per_unit", "low_balance_threshold", "default_limit",
    "threshold", "max_amount_per_period",
}
TIMES = {"anchor", "effective_at", "expires_at", "advance_to"}


def content(event):
    """Returns what the caller said, in one form for all that is equal."""
    data = dict(event["data"])
    if event["type"] != "ledger.usage.recorded.v1":
        return json.dumps([event["type"], plain(data)], sort_keys=True)
    if data.pop("lines", None) is not None:
        data.pop("credits")
    data.pop("held", None)
    return json.dumps([event["type"], instant(event["time"]), plain(data)], sort_keys=True)


def plain(data):
    said = {}
    for key, value in data.items():
        if key == "metadata" or value is None:
            if value is not None or key == "low_balance_threshold":
                said[key] = value
        elif key == "quantities":
            said[key] = {name: amount(quantity) for name, quantity in value.items()}
        elif key == "custom":
            said[key] = {user: limit if limit == "unlimited" else amount(limit) for user, limit in value.items()}
        elif isinstance(value, dict):
            said[key] = plain(value)
        elif key == "limit":
            said[key] = value if value == "unlimited" else amount(value)
        else:
            said[key] = amount(value) if key in AMOUNTS else instant(value) if key in TIMES else value
    return said


def mispriced(data):
    """Says whether the price lines of a usage don't add up."""
    total = 0
    for line in data.get("lines") or []:
        product = amount(line["amount"]) * amount(line["unit_credits"])
        if half_even(product, amount(line["per"])) != amount(line["credits"]):
            return True
        total += amount(line["credits"])
    return data.get("lines") is not None and total != amount(data["credits"])


class Journal:
    def __init__(self):
        self.schemas = Schemas()
        self.accounts, self.seen, self.halted = {}, {}, {}
        self.outcomes, self.problems, self.next_offset, self.partitions = {}, [], {}, None

    def fold(self, record):
        """Folds one record and returns its outcome and, where there is one, the reason."""
        event = record.get("event")
        if record["offset"] < self.next_offset.get(record["partition"], 0):
            raise SystemExit(f"partition {record['partition']} goes back at offset {record['offset']}")
        self.next_offset[record["partition"]] = record["offset"] + 1
        if isinstance(event, dict) and event.get("type") == "ledger.genesis.v1":
            self.partitions = event["partitions"]
            return "genesis", None
        outcome, reason = self.judge(record, event)
        account = event.get("subject") if outcome != "dead_letter" else "-"
        counts = self.outcomes.setdefault(account, {})
        counts[outcome] = counts.get(outcome, 0) + 1
        return outcome, reason

    def judge(self, record, event):
        reason = self.dead(record, event)
        if reason:
            return "dead_letter", reason
        account_id = event["subject"]
        if account_id in self.halted:
            return "parked", "behind"
        wrong = self.schemas.errors(event["type"], event)
        if wrong is None:
            self.halted[account_id] = event["type"]
            return "parked", event["type"]
        if not wrong:
            try:
                beyond_schemas(event)
            except (ValueError, KeyError, OverflowError, OSError) as error:
                wrong = [str(error)]
        if wrong:
            return "dead_letter", wrong[0]
        return self.apply(record, event, account_id)

    def dead(self, record, event):
        """Says why a record is no event of its account, whatever its type."""
        if not isinstance(event, dict):
            return "not an envelope"
        if depth(json.dumps(event)) > DEPTH_MAX:
            return "too deep"
        envelope = self.schemas.judge({"$ref": "envelope.v1.json"}, "envelope.v1.json", event, "event")
        if envelope:
            return envelope[0]
        if record["key"] != event["subject"]:
            return "key is not the subject"
        if self.partitions and (murmur2(record["key"].encode()) & 0x7FFFFFFF) % self.partitions != record["partition"]:
            return "wrong partition"
        return None

    def apply(self, record, event, account_id):
        account, data = self.accounts.get(account_id), event["data"]
        opening = event["type"] == "ledger.account.opened.v1"
        if account is None and not opening:
            return "rejected", "account_not_open"
        time = instant(event["recordedat"])
        test = account.test if account else data.get("clock") == "test"
        if not test:
            time = min(time, instant(record["timestamp"]) + AHEAD_OF_BROKER_MAX)
        known = self.seen.get((account_id, event["source"], event["id"]))
        if account:
            if account.test and account.jumps(time):
                if known is None:
                    self.seen[(account_id, event["source"], event["id"])] = content(event)
                    return "rejected", "clock_jump"
            else:
                account.advance(time)
        if known is not None:
            return ("duplicate", None) if known == content(event) else ("conflict", None)
        self.seen[(account_id, event["source"], event["id"])] = content(event)
        if opening:
            if account:
                return "rejected", "account_exists"
            self.accounts[account_id] = Account(account_id, data, time)
            return "applied", None
        if event["type"] == "ledger.usage.recorded.v1" and mispriced(data):
            self.problems.append(f"{record['partition']}:{record['offset']} is not charged by its price lines")
        kind = event["type"][len("ledger."):-len(".v1")]
        if account.is_closed_to(event, kind):
            return "rejected", "account_closed"
        if account.turnover > TURNOVER_MAX and event["type"] != "ledger.period.reset.v1":
            return "rejected", "out_of_range"
        if kind == "usage.recorded" and data.get("call_id") in account.calls:
            return "duplicate", None
        try:
            getattr(account, kind.replace(".", "_"))(event, data)
        except Rejected as rejected:
            return "rejected", str(rejected)
        return "applied", None

    def shown(self):
        for account_id, account in self.accounts.items():
            if account.booked != account.settled():
                self.problems.append(f"{account_id}: booked {show(account.booked)}, settled {show(account.settled())}")
        accounts = {
            account_id: {**account.shown(), "outcomes": self.outcomes[account_id]}
            for account_id, account in sorted(self.accounts.items())
        }
        return {
            "accounts": accounts, "dead_letters": sum(self.outcomes.get("-", {}).values()), "halted": self.halted,
            "next_offsets": {str(partition): offset for partition, offset in sorted(self.next_offset.items())},
            "problems": self.problems,
        }


def named(record):
    event = record.get("event")
    if not isinstance(event, dict):
        return {}
    return {"account": event.get("subject"), "source": event.get("source"), "id": event.get("id")}


def main():
    journal, tell = Journal(), "--events" in sys.argv[1:]
    for line in sys.stdin:
        if not line.strip():
            continue
        record = json.loads(line)
        outcome, reason = journal.fold(record)
        if tell:
            place = {"partition": record["partition"], "offset": record["offset"]}
            print(json.dumps({**place, **named(record), "outcome": outcome, "reason": reason}))
    print(json.dumps(journal.shown(), indent=None if tell else 2))
    return 1 if journal.problems else 0


if __name__ == "__main__":
    sys.exit(main())
