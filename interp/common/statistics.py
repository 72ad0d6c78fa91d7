"""A measured share, mean or ratio with its 95 % interval, as `hooks.statistics` computes it for all packages."""

from hooks.statistics import Estimate as Estimate
from hooks.statistics import Z as Z
from hooks.statistics import bootstrap as bootstrap
from hooks.statistics import draw_groups as draw_groups
from hooks.statistics import mean_over_groups as mean_over_groups
from hooks.statistics import mean_share as mean_share
from hooks.statistics import mean_with_interval as mean_with_interval
from hooks.statistics import percentile_ends as percentile_ends
from hooks.statistics import share as share
from hooks.statistics import share_over_groups as share_over_groups
from hooks.statistics import student as student
from hooks.statistics import wilson as wilson
