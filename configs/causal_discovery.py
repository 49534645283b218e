"""Causal discovery: networks trained on an endless stream of simulated causal models, to read a graph off a table.

  python -m jaxtrain.main --config=configs/causal_discovery.py              # cpu: 10 variables, minutes on one core
  python -m jaxtrain.main --config=configs/causal_discovery.py:bcnp --config.train.batch_size=64
  python -m jaxtrain.main --config=configs/causal_discovery.py:cpu --mode=check      # shapes, and the data's signal

Variants: cpu (default, also named pairs): the network on pair statistics; pairs20: the same on the tasks of avici;
kept: the same for other people's tables; avici_cpu: AVICI on the tasks of cpu, two cores; arrow, avici_arrow: pairs and
avici_cpu with acyclic graphs;
avici, avici_lite, bcnp, bcnp_pl: the models at the original's sizes on its training mixture;
bcnp_local_large: the original's run of 20,000 steps; paper_all_data: BCNP on the paper's graphs with exactly 20, 40, 60
edges and its mechanisms, n = 1000; benchmark: d in 10, 20, 30, 40; random: the baseline without training; smoke: tiny.
The large variants are for a GPU.
"""

from ml_collections import ConfigDict

from jaxtrain.config import common, pick_variant


def base():
  """What all variants share: the stream of tasks, AdamW at 1e-4 with a cosine, clipping, selection by edge F1."""
  config = common()
  config.data = ConfigDict()
  config.data.num_nodes = (20,)  # numbers of variables (d); several are drawn evenly
  config.data.pad_to = ()  # padded sizes of the batches; () = each number of variables has batches of its own
  config.data.num_rows = 256  # observational rows of a task (n)
  config.data.num_rows_int = 0  # rows of a task in each of which one variable is set
  config.data.p_obs_only = 0.0  # probability that those rows are observational too
  config.data.intervention_value = 0.0  # mean of the values that variables are set to, before standardisation
  config.data.intervention_scale = 1.0  # standard deviation of those values
  # families of random graphs: er | sf | sf_directed | sbm | ws | grg, each with PARAMETER=VALUE where it differs from
  # its default; weight is the share
  config.data.graphs = ("er edge_prob=0.2", "sf m=2")
  # functions from parents to child: linear | mlp | gp | gp_exact | pnl | square | product | threshold |
  # periodic | logistic | discrete; the guide has more
  config.data.mechanisms = ("linear weight=0.34", "mlp weight=0.33", "gp weight=0.33")
  # families of noise: gaussian | laplace | uniform | cauchy | exponential | student | bimodal | binary | ternary;
  # with heteroscedastic=1 parents set its size
  config.data.noises = ("gaussian",)
  config.data.noise_mixture = "task"  # what draws a noise: node | task | either, half of the tasks each
  # what stands between the model and the table: none | measurement | rounded | clipped | ordinal | missing | hidden
  # | lagged
  config.data.corruptions = ("none",)
  config.data.noise_share = (0.1, 0.9)  # range of a node's share of variance that is noise
  config.data.mixture = "node"  # what draws a mechanism, likewise: node | task | either
  config.data.normalize = True  # standardise each variable over the rows of its task
  config.data.reject_constant = True  # tasks with a constant variable count with weight 0
  config.data.task_chunk = 8  # tasks made at once; another gives the same tasks to rounding
  config.data.eval_seed = 0  # seed of validation and test tasks, the same for all runs
  config.data.val_seeds = ()  # numbers of the validation tasks; () = 0, 1, ... eval.max_val_tasks - 1
  config.data.test_seeds = ()  # numbers of the test tasks; () = 0, 1, ... eval.max_test_tasks - 1
  # families of tasks to judge by, each a name and FIELD=VALUE for what differs from the fields above, such as
  # "ood graphs=sbm:n_blocks=4 mechanisms=square+periodic num_nodes=20"; families are joined by +, their words by :
  config.data.val_families = ()  # for validation and so for the choice of the best state; () = as in training
  config.data.test_families = ()  # for the assessment, beside the tasks of the training distribution
  # a suite of such families for the assessment: competence | full_audit | functional | structural | pnl | chaos | table
  # | causal_benchmark | paper; empty = none
  config.eval.suite = ""
  config.eval.val_num_samples = 16  # graphs sampled per validation task
  config.eval.test_num_samples = 100  # graphs sampled per test task, in the assessment at the end
  config.eval.max_val_tasks = 128  # validation tasks
  config.eval.max_test_tasks = 256  # test tasks; 0 = no test part
  config.optim.name, config.optim.learning_rate, config.optim.weight_decay = "adamw", 1e-4, 1e-4
  config.optim.schedule, config.optim.clip_norm, config.optim.warmup_steps = "cosine", 1.0, 500
  config.train.batch_size, config.train.num_steps = 32, 100_000
  config.train.precision = "bfloat16"  # of the networks; losses, duals and orders are float32
  config.train.monitor, config.train.monitor_mode = "val_e_edge_f1", "max"
  config.eval.every_steps = config.checkpoint.every_steps = 1000
  config.log.every_steps = 100
  return config


def avici():
  """AVICI, official architecture at the original's sizes: 3,210,626 parameters."""
  config = base()
  config.experiment = "jaxtrain.experiments.causal_discovery.avici"
  config.model.architecture = "official"  # official | lite; their fields differ
  config.model.head = "independent"  # independent | arrow: edges by themselves, or a skeleton times an order
  config.model.penalty = "spectral"  # spectral | exponential: the radius of the edge probabilities P, or tr(exp P) - d
  config.model.dim = 128  # width of the network: numbers per variable and sample, or per pair
  config.model.num_blocks = 12  # blocks in all; of AVICI over variables and over samples by turns: 2 L of the paper
  config.model.num_heads = 8  # heads of each attention
  config.model.key_size = 32  # width of a head
  config.model.ff_dim = 512  # hidden width of the feed-forward layers
  config.model.dropout_rate = 0.1  # share of activations that are dropped in training
  config.model.tau_init = 2.0  # first value of the temperature of the logits, as a logarithm
  config.model.beta_init = -3.0  # first value of the bias of the logits
  config.model.remat = False  # recompute blocks in the backward pass: less memory
  config.model.sample_chunk = 0  # samples encoded at once; 0 = all
  config.model.dual = {
      "interval": 250,  # steps between updates of the dual weight
      "rate": 1e-4,  # learning rate of the dual weight
      "average_rate": 0.05,  # rate of the moving average of the penalty
      "warmup_steps": 0,  # steps of the linear rise of that learning rate
      "init": 0.0,  # first value of the dual weight
  }
  config.loss.weights = {
      "edge": 1.0,  # weight of the cross-entropy of the edges
      "acyclic": 1.0,  # weight of the penalty for cycles, multiplied by the dual weight
  }
  return config


def avici_lite():
  """AVICI-lite at the original's sizes: 1,230,849 parameters."""
  config = avici()
  for name in ("num_blocks", "key_size", "tau_init", "beta_init"):
    del config.model[name]
  config.model.architecture, config.model.penalty = "lite", "exponential"
  config.model.num_layers = 6  # attention layers of the encoder, by turns over samples and over variables; even
  config.model.emb_depth = 1  # depth of the embedding: 1 gives two linear layers
  config.model.dual.average_rate = 0.1
  return config


def bcnp():
  """BCNP at the original's sizes: 4 + 4 layers of 128, 10 permutations, 20 Sinkhorn iterations."""
  config = base()
  config.experiment = "jaxtrain.experiments.causal_discovery.bcnp"
  config.model.dim = 128
  config.model.num_layers = 4
  config.model.num_layers_decoder = 4  # attention layers for the order and for the edges, half of them each; even
  config.model.num_heads, config.model.ff_dim = 8, 512
  config.model.dropout_rate = 0.1
  config.model.emb_depth = 1
  config.model.q_before_l = True  # the layers for the order come before those for the edges
  config.model.order = "sinkhorn"  # how orders are drawn: sinkhorn | plackett_luce
  config.model.n_perm_samples = 10  # orders drawn per task and step
  config.model.sinkhorn_iter = 20  # Sinkhorn iterations, which make a permutation of scores
  config.model.remat = False
  config.model.sample_chunk = 0
  config.loss.weights = {"edge": 1.0}
  return config


def bcnp_pl():
  """BCNP with Plackett-Luce orders and the joint loss."""
  config = bcnp()
  config.model.order, config.model.n_perm_samples = "plackett_luce", 32
  return config


def bcnp_local_large():
  """The original's BCNP run: 20,000 steps, judged every 2,000, with 20 graphs per task, and by the full audit."""
  config = bcnp()
  config.train.num_steps = 20_000
  config.eval.every_steps = config.checkpoint.every_steps = 2000
  config.eval.val_num_samples = config.eval.test_num_samples = 20
  config.eval.suite = "full_audit"
  return config


def paper_all_data():
  """BCNP All-Data: ER graphs with exactly 20, 40, 60 edges and scale-free ones, the paper's mechanisms, n = 1000."""
  config = bcnp()
  config.data.graphs = ("er num_edges=20 weight=1", "er num_edges=40 weight=1", "er num_edges=60 weight=1",
                        "sf m=2 weight=3")
  config.data.mechanisms = ("bcnp_linear weight=0.34", "bcnp_mlp weight=0.33", "bcnp_gp weight=0.33")
  config.data.mixture, config.data.num_rows = "task", 1000
  config.model.dim, config.model.num_heads, config.model.ff_dim = 512, 16, 4096
  config.model.dropout_rate, config.model.n_perm_samples, config.model.sinkhorn_iter = 0.0, 100, 1000
  config.model.remat = True
  config.optim.weight_decay, config.optim.warmup_steps = 1e-5, 10_000
  config.train.microbatch = 8  # 1,000 rows x 16 heads: attention of all 32 tasks at once would not fit
  return config


def benchmark():
  """The newer benchmark: six graph families, three mechanisms, d in 10, 20, 30, 40, n = 500."""
  config = avici()
  config.data.num_nodes, config.data.num_rows = (10, 20, 30, 40), 500
  config.data.graphs = ("er edge_prob=0.0526", "er edge_prob=0.1053", "er edge_prob=0.1579", "sf m=1", "sf m=2",
                        "sf m=3")
  config.data.mechanisms = ("linear", "mlp", "gp rff_dim=512 num_kernels=4 length_low=0.1 length_high=10.0")
  return config


def random():
  """No training: edges at random with the training graphs' density."""
  config = base()
  config.experiment = "jaxtrain.experiments.causal_discovery.random_graphs"
  config.loss.weights = {"edge": 1.0}
  config.train.num_steps, config.train.precision = 0, "float32"
  return config


def pairs():
  """The network on statistics of pairs, on the tasks of `avici_cpu`: minutes on one core."""
  config = base()
  config.experiment = "jaxtrain.experiments.causal_discovery.pair_network"
  small_tasks(config)
  # groups of statistics: linear | moments | residual | regression | additive | interventions
  config.model.statistics = ("linear", "moments", "residual", "regression", "additive", "interventions")
  config.model.hidden_rows = 0.0  # largest share of a training task's rows that are hidden: 0.9 = a tenth to all left
  config.model.hidden_cells = 0.0  # largest share of its cells that are hidden, as if missing
  # mean log kurtosis of a table from which its ranks are read too, and from which they count a half; () = never
  config.model.tail_range = ()
  # n r^2 of rows with their next ones from which correlations decide too, and from which they decide alone; () = never
  config.model.dependence_range = ()
  # weights in their logit of 1, size and errors of correlation and partial correlation, log(n / 100), log(d / 10)
  config.model.correlation_weights = ()
  config.model.head = "independent"
  config.model.penalty = "spectral"
  config.model.dim, config.model.num_blocks = 32, 3
  config.model.num_heads, config.model.ff_dim = 4, 96
  config.model.dual = avici().model.dual  # in so few steps the penalty hardly acts
  config.loss.weights = {"edge": 1.0, "acyclic": 1.0}
  config.optim.learning_rate, config.optim.warmup_steps = 2e-3, 200
  config.train.num_steps, config.train.precision = 7000, "float32"
  config.train.monitor, config.train.monitor_mode = "val_loss", "min"  # the edges' likelihood: F1 is the noisier judge
  config.eval.every_steps = config.checkpoint.every_steps = 500
  config.log.every_steps = 50
  return config


def with_arrow(config):
  """The head `arrow` in place of independent edges with a penalty for cycles."""
  config.model.head = "arrow"
  del config.model.penalty, config.model.dual, config.loss.weights.acyclic
  return config


def arrow():
  """The network on pair statistics with a skeleton times an order: every sampled graph is acyclic."""
  return with_arrow(pairs())


def avici_arrow():
  """The small AVICI with that head."""
  return with_arrow(avici_cpu())


def pairs20():
  """The same on the tasks of `avici`, 20 variables and 256 rows."""
  config = pairs()
  of_avici = base().data
  for field in ("num_nodes", "num_rows", "mechanisms", "noise_share"):
    config.data[field] = of_avici[field]
  config.train.num_steps = 3500
  return config


def kept():
  """For tables of other people: 5 to 30 variables, 60 to 1,200 rows, nodes of all kinds; `kept:` is its state."""
  config = pairs()
  config.data.num_nodes, config.data.pad_to = (5, 10, 15, 20, 30), (10, 20, 30)
  config.data.num_rows, config.data.num_rows_int, config.data.p_obs_only = 1000, 200, 0.6
  config.data.graphs = ("er edge_prob=0.05", "er edge_prob=0.1", "er edge_prob=0.2", "er edge_prob=0.4",
                        "er edges_per_node=1.0", "sf m=1", "sf m=2", "sf_directed m=2", "sf_directed m=3 transpose=1",
                        "sbm")
  config.data.mechanisms = ("linear weight=6", "mlp weight=2", "gp weight=2", "mlp noise_input=1", "square", "product",
                            "threshold", "pnl nonlinearity=tanh", "pnl nonlinearity=cube", "periodic", "discrete")
  config.data.noises = ("gaussian weight=4", "laplace", "uniform", "exponential", "student", "bimodal", "binary",
                        "ternary", "gaussian heteroscedastic=1")
  config.data.mixture = config.data.noise_mixture = "either"
  config.data.corruptions = ("none weight=6", "measurement share=0.1", "measurement share=0.3", "rounded", "clipped",
                             "ordinal", "hidden")
  config.data.noise_share = (0.001, 0.95)
  config.data.intervention_scale = 2.0
  config.model.hidden_rows, config.model.hidden_cells = 0.95, 0.3
  config.model.tail_range, config.model.dependence_range = (2.5, 3.5), (5.0, 15.0)
  config.model.correlation_weights = (-2.905, -0.028, 1.114, 0.064, 1.129, -0.383, -0.338)
  config.model.dim, config.model.ff_dim = 48, 144
  config.train.num_steps = 6500
  return config


def small_tasks(config):
  """Tasks that a small network learns: 10 variables, 64 rows, clear signals."""
  config.data.num_nodes, config.data.num_rows = (10,), 64
  config.data.mechanisms = ("linear weight=0.5", "mlp weight=0.25", "gp weight=0.25")
  config.data.noise_share = (0.1, 0.5)


def avici_cpu():
  """AVICI small enough to learn on two cores in some twenty minutes: 10 variables, 64 rows, clear signals."""
  config = avici()
  small_tasks(config)
  config.model.dim, config.model.num_blocks = 32, 4
  config.model.num_heads, config.model.key_size, config.model.ff_dim = 4, 8, 128
  config.model.dropout_rate = 0.0
  config.model.dual.rate, config.model.dual.warmup_steps = 3e-3, 3000
  config.optim.learning_rate, config.optim.warmup_steps = 3e-3, 200
  config.train.num_steps, config.train.precision = 6000, "float32"
  config.eval.every_steps = config.checkpoint.every_steps = 250
  config.log.every_steps = 50
  return config


def smoke():
  """The default, tiny, in seconds: padded tasks, some rows with interventions."""
  config = avici_cpu()
  config.data.num_nodes, config.data.pad_to, config.data.num_rows = (4, 6), (6,), 20
  config.data.mechanisms, config.data.graphs = ("linear", "mlp"), ("er edge_prob=0.4",)
  config.data.num_rows_int = 4
  config.data.task_chunk = 4
  config.model.dim, config.model.num_blocks = 16, 2
  config.model.num_heads, config.model.key_size, config.model.ff_dim = 2, 8, 32
  config.model.dual.interval = 10
  config.train.batch_size, config.train.num_steps = 16, 40
  config.eval.every_steps = config.checkpoint.every_steps = 20
  config.eval.max_val_tasks, config.eval.max_test_tasks = 16, 0
  config.eval.val_num_samples = config.eval.test_num_samples = 8
  config.log.every_steps = 20
  return config


VARIANTS = {"cpu": pairs, "pairs": pairs, "pairs20": pairs20, "kept": kept, "avici_cpu": avici_cpu,
            "arrow": arrow, "avici_arrow": avici_arrow,
            "avici": avici, "avici_lite": avici_lite, "bcnp": bcnp, "bcnp_pl": bcnp_pl,
            "bcnp_local_large": bcnp_local_large, "paper_all_data": paper_all_data, "benchmark": benchmark,
            "random": random, "smoke": smoke}


def get_config(variant="cpu"):
  """The config of a variant. Raises UserError that lists them for an unknown one."""
  return pick_variant(variant, VARIANTS)()
