"""The API as a whole: what answers each route."""

from tracker.api.access import Access
from tracker.api.fleet import Fleet
from tracker.api.host import Host
from tracker.api.items import Items
from tracker.api.persons import Persons
from tracker.api.reads import Reads
from tracker.api.sending import Sending
from tracker.api.server import Handler, Server
from tracker.api.streams import Streams
from tracker.api.users import Users
from tracker.api.what_if import WhatIf


def build_api(host: Host) -> Server:
    """Return the server of a worker's API.

    Raises:
        SettingsError: a token cannot be read.
    """
    settings = host.context.settings
    access = Access(
        settings.token("web_token"), settings.token("web_read_token"), settings.web_rate
    )
    reads = Reads(host)
    persons = Persons(host)
    users, items, fleet = Users(host, reads), Items(host, reads), Fleet(host)
    handlers: dict[str, Handler] = {
        "users": users.seen,
        "user": users.user,
        "recommendations": users.recommendations,
        "interests": users.interests,
        "history": users.history,
        "outlook": users.outlook,
        "why": users.why,
        "what_if": WhatIf(reads, users, host.context.kinds).what_if,
        "stream": Streams(host, reads, users).stream,
        "export": persons.export,
        "forget": persons.forget,
        "guest": users.guest,
        "score": users.score,
        "events": Sending(host).events,
        "items": items.search,
        "map": items.map,
        "item": items.item,
        "trend": items.trend,
        "similar": items.similar,
        "artifacts": fleet.artifacts,
        "publish": fleet.publish,
        "rollback": fleet.rollback,
        "workers": fleet.workers,
        "rejections": fleet.rejections,
    }
    return Server(host, reads, access, handlers)
