import torch
import torch.nn.functional as F

from gmp_plugin.modules.multiscale import CosineHead, MultiscalePrediction


def test_one_two_layer_head_per_scale():
    torch.manual_seed(0)
    prediction = MultiscalePrediction(6, (8, 64), projection_dim=5)
    x = torch.randn(10, 6)
    logits = prediction(x)
    assert [z.shape for z in logits] == [(10, 8), (10, 64)]
    first, _, second = prediction.heads["64"]
    torch.testing.assert_close(logits[1], F.relu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias)


def test_cosine_head_is_hubert_compute_nce():
    """fairseq puts the target first and its duplicate among the negatives at -inf; the loss is the same."""
    from fairseq.models.hubert.hubert import HubertModel

    torch.manual_seed(0)
    head = CosineHead(6, 5, 8)
    x, target = torch.randn(10, 6), torch.randint(8, (10,))
    projected = head.projection(x)
    stock = HubertModel.__new__(HubertModel)
    torch.nn.Module.__init__(stock)
    stock.logit_temp = 0.1
    negatives = head.embedding[:, None].expand(-1, 10, -1)
    nce = stock.compute_nce(projected, head.embedding[target], negatives)
    expected = F.cross_entropy(nce, torch.zeros(10, dtype=torch.long))
    torch.testing.assert_close(F.cross_entropy(head(x), target), expected, atol=1e-6, rtol=1e-6)
