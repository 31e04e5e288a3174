"""The hosted pages: checkout, an invoice, the billing portal. A person decides here what a card would."""

from __future__ import annotations

from html import escape
from string import Template
from typing import Any

from tornado.web import RequestHandler

from controlplane.demo.fake_stripe import changes, checkout, invoices
from controlplane.demo.fake_stripe import subscription_records as records
from controlplane.demo.fake_stripe.api import Account
from controlplane.demo.fake_stripe.control import keep_card, pay_with_another_card
from controlplane.demo.fake_stripe.faults import StripeFault
from controlplane.demo.fake_stripe.world import Wire

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem; color: #1a1f36; }
h1 { font-size: 1.4rem } .note { color: #5b6178; font-size: .9rem } .error { color: #b3093c; font-weight: 600 }
button { font: inherit; padding: .6rem 1.2rem; border-radius: .4rem; border: 1px solid #c8cedb; background: #fff }
button.primary { background: #4f46e5; border-color: #4f46e5; color: #fff } td { padding: .2rem 1rem .2rem 0 }
form { display: inline-block; margin: .5rem .5rem .5rem 0 }
</style></head><body><p class="note">Test mode: no money moves here.</p><h1>$title</h1>$body</body></html>""")


class HostedPage(RequestHandler):
    def initialize(self, account: Account) -> None:
        self._account = account

    def set_default_headers(self) -> None:
        self.set_header(
            "Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        )
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    def prepare(self) -> None:
        self._account.clock.tick(self._account.world)

    def show(self, title: str, body: str, *, error: str = "", status: int = 200) -> None:
        self.set_status(status)
        shown = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
        self.finish(_PAGE.substitute(title=escape(title), body=shown + body))

    def find(self, kind: str, object_id: str) -> Wire | None:
        """None after an answer that says there is no such page."""
        try:
            return self._account.world.get(kind, object_id)
        except StripeFault:
            self.show("There is no such page", "", status=404)
            return None

    def done(self) -> None:
        self._account.world.settle()


class CheckoutPage(HostedPage):
    def get(self, session_id: str) -> None:
        session = self.find("checkout.session", session_id)
        if session is not None:
            self._show(session)

    def post(self, session_id: str) -> None:
        session = self.find("checkout.session", session_id)
        if session is None:
            return
        if self.get_body_argument("outcome", "pay") == "decline":
            self._show(session, error="Your card was declined. Try another one.")
            return
        try:
            checkout.pay(self._account.world, session_id)
        except StripeFault as fault:
            self._show(session, error=fault.message)
            return
        finally:
            self.done()
        self.redirect(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session_id), status=303)

    def _show(self, session: Wire, *, error: str = "") -> None:
        if session["status"] != "open":
            self.show("This page is no longer valid", f"<p>The checkout is {session['status']}.</p>", status=410)
            return
        note = self._account.world.note(session["id"])
        rows = "".join(
            f"<tr><td>{line['quantity']} × {escape(line['description'])}</td>"
            f"<td>{_money(line['amount_total'], line['currency'])} each "
            f"{line['price']['recurring']['interval']}</td></tr>"
            for line in note["line_items"]
        )
        trial = note["data"].get("trial_period_days")
        body = (
            f"<table>{rows}</table>"
            + (f"<p>Free for {trial} days.</p>" if trial else "")
            + _button("Subscribe", "pay", primary=True)
            + _button("Pay with a card that is declined", "decline")
            + (f'<p><a href="{escape(session["cancel_url"])}">Back</a></p>' if session["cancel_url"] else "")
        )
        self.show("Subscribe", body, error=error)


class InvoicePage(HostedPage):
    def get(self, invoice_id: str) -> None:
        invoice = self.find("invoice", invoice_id)
        if invoice is not None:
            self._show(invoice)

    def post(self, invoice_id: str) -> None:
        invoice = self.find("invoice", invoice_id)
        if invoice is None:
            return
        error = ""
        try:
            pay_with_another_card(self._account, invoice_id)
        except StripeFault as fault:
            error = fault.message
        self.done()
        self._show(invoice, error=error)

    def _show(self, invoice: Wire, *, error: str = "") -> None:
        rows = "".join(
            f"<tr><td>{escape(line['description'])}</td><td>{_money(line['amount'], line['currency'])}</td></tr>"
            for line in invoice["lines"]["data"]
        )
        due = _money(invoice["amount_due"], invoice["currency"])
        body = f"<table>{rows}</table><p>{escape(invoice['status'])}, {due} in all</p>"
        if invoice["status"] == "open":
            body += _button(f"Pay {due}", "pay", primary=True)
        self.show(f"Invoice {invoice['number'] or ''}", body, error=error)


class InvoicePdf(HostedPage):
    """Only says what it is: nobody prints pretended invoices."""

    def get(self, invoice_id: str) -> None:
        invoice = self.find("invoice", invoice_id)
        if invoice is not None:
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(f"Invoice {invoice['number']}: {_money(invoice['total'], invoice['currency'])}\n")


class PortalPage(HostedPage):
    def get(self, session_id: str) -> None:
        session = self.find("billing_portal.session", session_id)
        if session is not None:
            self._show(session)

    def post(self, session_id: str) -> None:
        session = self.find("billing_portal.session", session_id)
        if session is None:
            return
        error = ""
        try:
            self._act(session, self.get_body_argument("outcome", ""))
        except StripeFault as fault:
            error = fault.message
        self.done()
        self._show(session, error=error)

    def _act(self, session: Wire, outcome: str) -> None:
        if outcome == "card":
            keep_card(self._account, session["customer"])
        elif outcome in ("cancel", "resume"):
            for subscription in self._subscriptions(session):
                changes.update(self._account.world, {"cancel_at_period_end": outcome == "cancel"}, subscription["id"])

    def _subscriptions(self, session: Wire) -> list[Wire]:
        found = self._account.world.all("subscription")
        return [one for one in found if one["customer"] == session["customer"] and not records.has_ended(one)]

    def _show(self, session: Wire, *, error: str = "") -> None:
        world = self._account.world
        body = _button("Use a card that works", "card", primary=True)
        for subscription in self._subscriptions(session):
            end = invoices.day(records.period(subscription)[1])
            ends = subscription["cancel_at_period_end"]
            body += f"<p>{escape(subscription['status'])}, {'ends' if ends else 'renews'} on {end}</p>"
            body += _button("Keep it", "resume") if ends else _button("Cancel at the end of the period", "cancel")
        own = [one for one in world.all("invoice") if one["customer"] == session["customer"] and one["number"]]
        rows = "".join(
            f'<tr><td><a href="{escape(one["hosted_invoice_url"])}">{escape(one["number"])}</a></td>'
            f"<td>{_money(one['amount_due'], one['currency'])}</td><td>{escape(one['status'])}</td></tr>"
            for one in own
        )
        body += f"<table>{rows}</table>"
        if session["return_url"]:
            body += f'<p><a href="{escape(session["return_url"])}">Back</a></p>'
        self.show("Your subscription", body, error=error)


PAGES: tuple[tuple[str, Any], ...] = (
    (r"/pay/([^/]+)", CheckoutPage),
    (r"/invoice/([^/]+)", InvoicePage),
    (r"/invoice/([^/]+)/pdf", InvoicePdf),
    (r"/portal/([^/]+)", PortalPage),
)


def _money(amount: int, currency: str) -> str:
    return f"{amount / 100:.2f} {escape(currency.upper())}"


def _button(label: str, outcome: str, *, primary: bool = False) -> str:
    return (
        f'<form method="post"><input type="hidden" name="outcome" value="{outcome}">'
        f"<button{' class=primary' if primary else ''}>{escape(label)}</button></form>"
    )
