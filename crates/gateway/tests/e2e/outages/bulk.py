"""Many subscribe and unsubscribe commands in one frame, for suites that need tens of thousands of them."""

# Below the bound of commands that may wait, and of the bytes of a frame.
FRAME_COMMANDS = 400


def subscribe(raw, topics):
    for begin in range(0, len(topics), FRAME_COMMANDS):
        command_all(raw, "subscribe", topics[begin : begin + FRAME_COMMANDS])


def command_all(raw, method, topics):
    """Gives the same command for every topic and waits until each has succeeded. Replies are told by their text, since
    to decode them would take most of the test's time."""
    commands = (f'{{"id":{index + 2},"{method}":{{"channel":"{topic}"}}}}' for index, topic in enumerate(topics))
    raw.send_text("\n".join(commands))
    wanted, done = b'"%s":{' % method.encode(), 0
    while done < len(topics):
        opcode, payload = raw.read_frame()
        assert opcode == 0x1, f"expected replies, got {opcode}: {payload!r}"
        for reply in payload.split(b"\n"):
            if reply == b"{}":
                raw.send_text("{}")
            else:
                assert wanted in reply, reply
                done += 1
