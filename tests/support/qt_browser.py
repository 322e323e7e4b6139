# SPDX-License-Identifier: Apache-2.0
"""The Chromium inside PySide6's wheels as a program with a DevTools pipe, for tests of pages.

Reads commands on file descriptor 3 and writes answers and events on 4, as Chromium does with
`--remote-debugging-pipe`; they go to the one page's own DevTools socket, so there are no sessions.
"""

from __future__ import annotations

import json
import os
import socket
import sys

_READ_FD, _WRITE_FD = 3, 4
_AGAIN_MS = 50


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    """Serve one page until the pipe is closed."""
    port = _free_port()
    os.environ |= {
        "QT_QPA_PLATFORM": "offscreen",
        "QTWEBENGINE_DISABLE_SANDBOX": "1",
        "QTWEBENGINE_REMOTE_DEBUGGING": f"127.0.0.1:{port}",
        "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu --remote-allow-origins=* "
        "--disable-background-networking",
    }
    from PySide6.QtCore import QSocketNotifier, QTimer, QUrl
    from PySide6.QtNetwork import QNetworkAccessManager, QNetworkReply, QNetworkRequest
    from PySide6.QtWebEngineCore import QWebEngineSettings
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWebSockets import QWebSocket
    from PySide6.QtWidgets import QApplication

    application = QApplication(sys.argv[:1])
    view = QWebEngineView()
    view.settings().setAttribute(QWebEngineSettings.WebAttribute.ShowScrollBars, False)
    view.load(QUrl("about:blank"))
    view.show()
    network, page, pipe = QNetworkAccessManager(), QWebSocket(), bytearray()
    notifier = QSocketNotifier(_READ_FD, QSocketNotifier.Type.Read)
    notifier.setEnabled(False)

    def ask() -> None:
        network.get(QNetworkRequest(QUrl(f"http://127.0.0.1:{port}/json/list")))

    def listed(reply: QNetworkReply) -> None:
        text = bytes(reply.readAll().data())
        pages = [one for one in json.loads(text or b"[]") if one.get("type") == "page"]
        if pages:
            page.open(QUrl(pages[0]["webSocketDebuggerUrl"]))
        else:
            QTimer.singleShot(_AGAIN_MS, ask)

    def commanded() -> None:
        chunk = os.read(_READ_FD, 1 << 20)
        if not chunk:
            application.quit()
        pipe.extend(chunk)
        while b"\0" in pipe:
            message, _, rest = bytes(pipe).partition(b"\0")
            pipe[:] = rest
            page.sendTextMessage(message.decode())

    def answered(message: str) -> None:
        left = message.encode() + b"\0"
        while left:
            left = left[os.write(_WRITE_FD, left) :]

    network.finished.connect(listed)
    notifier.activated.connect(commanded)
    page.connected.connect(lambda: notifier.setEnabled(True))
    page.textMessageReceived.connect(answered)
    ask()
    return int(application.exec())


if __name__ == "__main__":
    sys.exit(main())
