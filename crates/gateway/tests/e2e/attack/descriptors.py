"""More sockets than descriptors. Connected clients, new clients and health checks notice nothing."""

import resource

from harness import Server, die_with_parent

LIMIT = 256


class LimitedServer(Server):
    """A server that may open few descriptors."""

    def spawn(self):
        super().spawn(prepare=limit_descriptors)


def limit_descriptors():
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))


def test_more_sockets_than_descriptors(trial):
    trial.serve(kind=LimitedServer, clients=5)
    with trial.attack(f"400 sockets at a node of {LIMIT} descriptors") as attack:
        for _ in range(400):
            attack.socket()
