from cellweft.impute.imputer import Imputer as Imputer
