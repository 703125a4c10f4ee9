# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The segnode authors
"""Asking a web server for a file, and saying what came in place of weights.

Nothing here prints a URL's credentials or its query, where signed links keep theirs.
"""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPMessage
from typing import IO, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from segnode.checkpoint.message import one_line
from segnode.errors import CheckpointError

# All that a server, a proxy or a missing network has been seen to raise.
NETWORK_ERRORS: Final = (OSError, http.client.HTTPException, ValueError)
_DRIVE: Final = ('drive.google.com', 'docs.google.com', 'drive.usercontent.google.com')


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says of a file.

    Attributes:
        etag: its version, empty where the server has none.
        last_modified: an HTTP date, empty where the server gives none.
        length: bytes of the whole file, None where the server does not say.
        content_type: in lower case, without parameters.
    """

    etag: str
    last_modified: str
    length: int | None
    content_type: str

    @classmethod
    def of(cls, headers: HTTPMessage) -> Answer:
        """Read it from the headers of an answer, whole or of a range."""
        length = headers.get('Content-Range', '').rpartition('/')[2] or headers.get(
            'Content-Length', ''
        )
        return cls(
            etag=_plain(headers.get('ETag', '')),
            last_modified=_plain(headers.get('Last-Modified', '')),
            length=int(length) if length.isascii() and length.isdigit() else None,
            content_type=headers.get_content_type() if 'Content-Type' in headers else '',
        )


def shown(url: str) -> str:
    """Return a URL as it may be printed: without credentials, its query as three dots."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition('@')[2]
    except ValueError:
        return 'the URL'
    text = f'{parts.scheme}://{host}{parts.path}' + ('?...' if parts.query else '')
    return one_line(text, limit=300)


def split_url(url: str) -> SplitResult:
    """Return the parts of an http or https URL.

    Raises:
        CheckpointError: it is none.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ('http', 'https') and url.isprintable()
        if valid and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # of a host or a port
        pass
    raise CheckpointError(f'{shown(url)}: expected http(s)://HOST/FILE, found another kind of URL')


def open_url(
    url: str, timeout_s: float, headers: Mapping[str, str], method: str = 'GET'
) -> http.client.HTTPResponse:
    """Send a request and return the answer, whose body is still to be read.

    Redirects are followed, to other hosts without the credentials.

    Raises:
        OSError: no connection, a status of 300 or more, or silence; among others, see
            ``NETWORK_ERRORS``.
    """
    parts = split_url(url)
    user, at, host = parts.netloc.rpartition('@')
    bare = parts._replace(
        netloc=host,
        path=quote(parts.path, safe="/%:@!$&'()*+,;=~"),
        query=quote(parts.query, safe="/%:@!$&'()*+,;=~?"),
        fragment='',
    )
    request = urllib.request.Request(bare.geturl(), headers=dict(headers), method=method)
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header('Authorization', f'Basic {token}')
    response = urllib.request.build_opener(_Redirects).open(request, timeout=timeout_s)
    assert isinstance(response, http.client.HTTPResponse)
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows HEAD as HEAD, 308 (not in Python 3.10), and with credentials on one host only."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ('http', 'https'):
            raise urllib.error.URLError('it leads to something else than http')
        code = 307 if code == 308 else code
        follow = super().redirect_request(req, fp, code, msg, headers, newurl)
        if follow is not None:
            follow.method = req.get_method()
            own = req.get_header('Authorization')
            if own and urlsplit(newurl)[:2] == urlsplit(req.full_url)[:2]:
                follow.add_unredirected_header('Authorization', own)
        return follow


def reason(error: BaseException) -> str:
    """Return why a request failed, without a word of the server's or of the URL."""
    if isinstance(error, urllib.error.HTTPError):
        try:
            return f'HTTP {error.code} {HTTPStatus(error.code).phrase}'
        except ValueError:
            return f'HTTP {error.code}'
    if isinstance(error, urllib.error.URLError):
        inner = error.reason
        return reason(inner) if isinstance(inner, BaseException) else one_line(inner)
    if isinstance(error, TimeoutError):
        return 'no answer in time'
    if isinstance(error, http.client.IncompleteRead):
        return f'the connection ended after {len(error.partial)} bytes'
    if isinstance(error, http.client.HTTPException | ValueError):
        return f'the server does not answer as one ({type(error).__name__})'
    return one_line(error)


def what_came(head: bytes, answer: Answer, asked: str, given: str) -> str:
    """Say what came in place of weights, and what to do.

    Args:
        head: the first bytes.
        answer: the server's headers.
        asked: the URL that the user gave.
        given: the one that answered, after redirects.
    """
    start = head.removeprefix(b'\xef\xbb\xbf').lstrip()[:4096]
    lower = start[:64].lower()
    if not head:
        return 'an empty answer came'
    if start.startswith(b'version https://git-lfs'):
        return (
            'a Git LFS pointer came, not the file that it stands for: take the link of the '
            "page's download button, or run `git lfs pull` in a clone"
        )
    kind = answer.content_type
    if lower.startswith((b'<!doctype html', b'<html', b'<head', b'<script')) or (
        lower.startswith(b'<') and kind in ('text/html', 'application/xhtml+xml')
    ):
        return _page(asked, given)
    if lower.startswith(b'<'):
        code = re.search(rb'<Code>(\w{1,40})</Code>', start)
        named = f' ({code[1].decode()})' if code else ''
        return f'an XML answer{named} came, as storage servers report errors: check the link'
    if lower.startswith((b'{', b'[')):
        return 'a JSON answer came, as servers report errors: check the link and the access to it'
    if kind in ('text/html', 'application/xhtml+xml'):
        return _page(asked, given)
    if all(byte >= 32 or byte in b'\t\r\n' for byte in start[:64]):
        return 'text came: check the link'
    return f'no weights came but a file that begins with {head[:4].hex(" ")}: check the link'


def _page(asked: str, given: str) -> str:
    """Say of a web page how the file behind it is had."""
    link = shown(asked)
    host = split_url(asked).hostname or ''
    landed = urlsplit(given).hostname or ''
    if host == 'github.com' and '/blob/' in link:
        return f'a web page came: take the raw link, {link.replace("/blob/", "/raw/", 1)}'
    if host == 'huggingface.co' and '/blob/' in link:
        return f'a web page came: take the raw link, {link.replace("/blob/", "/resolve/", 1)}'
    if '/-/blob/' in link:
        return f'a web page came: take the raw link, {link.replace("/-/blob/", "/-/raw/", 1)}'
    if host in _DRIVE or landed in _DRIVE:
        return (
            "a web page of Google Drive came, which asks a person: it can't be fetched from here"
        )
    if host.endswith('dropbox.com'):
        return 'a web page came: end the link with dl=1'
    where = f' of {landed}' if landed and landed != host else ''
    return (
        f'a web page{where} came, such as a login or a proxy answers: open the link in a browser'
    )


def _plain(text: str) -> str:
    """Return a header's value where it can be sent back as it is, else nothing."""
    return text if text.isascii() and text.isprintable() else ''
