from cellweft.data._pair import Pair as Pair
from cellweft.data._pair import pair as pair
