"""Suffix automaton of a growing text, with the number of occurrences of every substring."""


class SuffixAutomaton:
    """The smallest automaton that reads exactly the substrings of a text (Blumer et al. 1985).

    A state stands for the substrings that end at the same places: the longest has `length[state]` tokens, and dropping
    tokens from the front leads, past the shortest, to the state `link[state]`. State 0 is the empty string.

    next:  state -> token -> state
    count: places at which the substrings of a state end, for state 0 the length of the text
    """

    def __init__(self) -> None:
        self.next: list[dict[int, int]] = [{}]
        self.link = [-1]
        self.length = [0]
        self.count = [0]
        self.last = 0

    def append(self, token: int) -> None:
        """Adds a token: amortised constant time for the states, one step per suffix that recurs for the counts."""
        new = self._state({}, self.length[self.last] + 1, 0)
        state = self.last
        while state >= 0 and token not in self.next[state]:
            self.next[state][token] = new
            state = self.link[state]
        self.link[new] = 0 if state < 0 else self._ending(state, token)
        self.last = new
        while new >= 0:
            self.count[new] += 1
            new = self.link[new]

    def _ending(self, state: int, token: int) -> int:
        """The state whose longest substring is that of `state` plus the token; split off where it holds longer ones."""
        reached = self.next[state][token]
        if self.length[reached] == self.length[state] + 1:
            return reached
        copy = self._state(dict(self.next[reached]), self.length[state] + 1, self.count[reached])
        self.link[copy] = self.link[reached]
        self.link[reached] = copy
        while state >= 0 and self.next[state].get(token) == reached:
            self.next[state][token] = copy
            state = self.link[state]
        return copy

    def _state(self, successors: dict[int, int], length: int, count: int) -> int:
        self.next.append(successors)
        self.link.append(-1)
        self.length.append(length)
        self.count.append(count)
        return len(self.link) - 1

    @property
    def repeated(self) -> int:
        """The state of the longest suffix of the text that occurs in it more than once; 0 when there is none."""
        return max(self.link[self.last], 0)
