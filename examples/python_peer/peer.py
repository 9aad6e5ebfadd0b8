"""The Python side of the example `python_peer`; its Rust side starts it, with REDIS_HOST and REDIS_PORT set."""

from synced_memory import Memory, PrefixedMemory

chat = Memory()
assert chat.turns == 1
assert chat.temperature == 0.1 + 0.2
assert chat.history.aslist() == [{"role": "user", "text": "Grüße!"}]
assert chat.settings["lang"] == "de"
assert PrefixedMemory(prefix="session_1").turns == 7
print("python: read what Rust wrote", flush=True)

chat.turns += 1
chat.history.append({"role": "assistant", "text": "Hello."})
chat.settings["model"] = "small"
del chat.note
print("python: answered", flush=True)
