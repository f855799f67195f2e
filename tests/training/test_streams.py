import itertools

import torch

from dit.training.streams import Streams, key


def test_draws_are_a_function_of_seed_purpose_and_step():
    one, two = Streams(3, 8), Streams(3, 8)
    two.uniform("times", 1)  # drawing something else in between changes nothing
    assert torch.equal(one.normal("noise", 7, (2, 2)), two.normal("noise", 7, (2, 2)))


def test_every_purpose_step_and_seed_has_its_own_stream():
    keys = {key(*case) for case in itertools.product((0, 1), ("noise", "times", "posterior"), range(200))}
    assert len(keys) == 2 * 3 * 200


def test_ranks_put_together_give_the_global_batch():
    whole = Streams(0, 12).normal("noise", 5, (3, 4, 4))
    for world in (1, 2, 4):
        parts = [Streams(0, 12, rank, world).normal("noise", 5, (3, 4, 4)) for rank in range(world)]
        assert torch.equal(torch.cat(parts), whole)


def test_normal_and_uniform_have_their_moments():
    normal = Streams(0, 20_000).normal("noise", 0, (1,))
    uniform = Streams(0, 20_000).uniform("times", 0)
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.02
    assert abs(uniform.mean() - 0.5) < 0.01 and uniform.min() >= 0 and uniform.max() < 1
