"""Programs whose dump or restore can be made to fail; they run after what ``provoked`` puts before them."""

from __future__ import annotations

IO_URING = "parameters = ctypes.create_string_buffer(120); must(libc.syscall(425, 8, parameters))"
USERFAULTFD = "must(libc.syscall(323, 1))"
PERF_EVENT = """
import struct
attributes = struct.pack("=IIQ", 1, 128, 1).ljust(128, b"\\0")
must(libc.syscall(298, attributes, 0, -1, -1, 0))
"""
SECRET_MEMORY = """
import mmap
secret = must(libc.syscall(447, 0)); os.ftruncate(secret, 4096); mapped = mmap.mmap(secret, 4096)
"""
SYSV_SHM = """
libc.shmat.restype = ctypes.c_void_p
segment = libc.shmget(0, 4096, 0o1600)
assert libc.shmat(segment, None, 0); libc.shmctl(segment, 0, None)
"""
NESTED = """
if os.fork() == 0:
    must(libc.unshare(int(sys.argv[2])))
    open(here + "/nested", "w").close(); time.sleep(60)
while not os.path.exists(here + "/nested"): pass
"""
IN_FLIGHT = """
listening = socket.create_server(("127.0.0.1", 0)); connected = socket.create_connection(listening.getsockname())
"""
UNIX_IN_FLIGHT = """
listening = socket.socket(socket.AF_UNIX); listening.bind(here + "/listening"); listening.listen()
connected = socket.socket(socket.AF_UNIX); connected.connect(here + "/listening"); connected.send(b"early")
"""
UNREAD = """
import struct
asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); asking.bind((0, 0))
asking.send(struct.pack("=IHHIIB15x", 32, 18, 0x301, 1, 0, 0)); time.sleep(0.2)
"""
CORKED = """
sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sending.setsockopt(17, 1, 1)
sending.connect(("127.0.0.1", 9)); sending.send(b"half")
"""
DELETED = """
file = open(here + "/gone", "wb"); file.write(b"x" * (2 << 20)); file.flush(); os.unlink(file.name)
"""
MOUNTED_OVER = """
os.mkdir(here + "/under"); file = open(here + "/under/file", "w")
must(libc.mount(b"none", (here + "/under").encode(), b"tmpfs", 0, None))
"""
VFORK = """
if libc.syscall(56, 0x4000 | 17, 0, 0, 0, 0) == 0:
    open(here + "/ready", "w").close(); time.sleep(60)
"""
DEAD_LEADER = """
import threading
if os.fork() == 0:
    threading.Thread(target=time.sleep, args=(60,)).start()
    open(here + "/ending", "w").close(); libc.syscall(60, 0)
while not os.path.exists(here + "/ending"): pass
time.sleep(0.2)
"""
OVERLAY = """
for name in ("lower", "upper", "work", "seen"): os.mkdir(f"{here}/{name}")
layers = f"lowerdir={here}/lower,upperdir={here}/upper,workdir={here}/work"
must(libc.mount(b"none", (here + "/seen").encode(), b"overlay", 0, layers.encode()))
os.mkdir(here + "/seen/watched"); watch = libc.inotify_init()
must(libc.inotify_add_watch(watch, (here + "/seen/watched").encode(), 2))
"""
NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"
TRAP = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [5]); os.kill(os.getpid(), 5)"
UNIX_OUTSIDE = "link = socket.socket(socket.AF_UNIX); link.connect(here + '/outside')"
FROM_OUTSIDE = """
link = socket.socket(socket.AF_UNIX); link.connect(here + "/outside")
held = socket.recv_fds(link, 1, 1)[1]; link.close()
"""
TCP = """
listening = socket.create_server(("127.0.0.1", 0)); connected = socket.create_connection(listening.getsockname())
accepted = listening.accept()
"""
FILTER = (  # a seccomp filter that allows everything
    "import ctypes, os, struct, sys; libc = ctypes.CDLL(None); rule = struct.pack('HBBI', 6, 0, 0, 0x7fff0000);"
    "kept = ctypes.create_string_buffer(rule); program = struct.pack('H6xQ', 1, ctypes.addressof(kept));"
    "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0\n"
)
FILE = "file = open(here + '/data', 'w'); file.write('12345'); file.flush()\n"
THERE = "there = here + '/there'\n"
LISTENING = "listening = socket.create_server((sys.argv[2], int(sys.argv[3])))"
TIED = "tied = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); tied.setsockopt(1, 25, sys.argv[2].encode() + b'\\0')"
DATAGRAMS = "link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); link.connect(here + '/outside')"
GONE = "file = open(here + '/gone', 'wb'); file.write(b'x' * (2 << 20)); file.flush(); os.unlink(file.name)"
