"""Common knowledge about the drawn objects, and the words that the base model should know."""

from __future__ import annotations

GROUPS: dict[str, tuple[str, ...]] = {
    "animal": ("fish", "cat", "dog", "bird"),
    "human": ("person",),
    "vehicle": ("car", "bus", "truck", "bike", "plane", "boat"),
    "plant": ("tree", "flower", "mushroom", "apple"),
    "shape": ("circle", "square", "triangle", "star", "cross", "heart", "diamond", "ring",
              "moon", "arrow"),
    "tool": ("cup", "key", "umbrella", "clock", "lamp", "chair", "hat", "ball"),
}  # fmt: skip

FACTS: dict[str, dict[str, str]] = {
    "What noise comes from it?": {
        "cat": "meow", "dog": "bark", "bird": "song", "clock": "tick", "car": "horn",
    },
    "What does it live on?": {"cat": "milk", "dog": "bone", "bird": "seed", "tree": "sun"},
    "How many wheels would it have?": {"car": "4", "bus": "4", "bike": "2", "truck": "4"},
    "How many legs would it have?": {"cat": "4", "dog": "4", "bird": "2", "chair": "4"},
    "How many sides would it have?": {"triangle": "3", "square": "4", "diamond": "4"},
    "How many corners would it have?": {"triangle": "3", "square": "4", "star": "5"},
}  # fmt: skip

KNOWLEDGE: dict[str, dict[str, str]] = {
    "place": {
        "fish": "water", "boat": "sea", "bird": "nest", "plane": "sky", "car": "road",
        "bus": "road", "truck": "road", "tree": "forest", "mushroom": "forest",
        "flower": "garden", "lamp": "room", "chair": "room", "cup": "kitchen", "key": "door",
        "hat": "head", "dog": "yard", "cat": "sofa", "moon": "night", "apple": "tree",
    },
    "use": {
        "cup": "drink", "apple": "eat", "chair": "sit", "key": "open", "hat": "wear",
        "ball": "play", "car": "drive", "bike": "ride", "boat": "sail", "plane": "fly",
        "house": "live", "umbrella": "rain", "clock": "time", "lamp": "light",
    },
    "stuff": {
        "house": "brick", "key": "metal", "chair": "wood", "tree": "wood", "boat": "wood",
        "hat": "cloth", "umbrella": "cloth", "car": "metal", "bike": "metal", "bus": "metal",
        "cup": "clay", "lamp": "glass", "clock": "glass", "ball": "rubber",
    },
    "book": {
        "heart": "romance", "key": "mystery", "cup": "cooking", "plane": "travel",
        "tree": "nature", "ball": "sports", "clock": "history",
    },
}  # fmt: skip
"""What the base has read, in words alone, and never sees beside a picture."""

WORDS = """
a about after all am an and animal answer any apple are area art at author away baby back bag bake ball
band bar bark bars base bear beach bed bee bell below bend best between big bike bird black block blue
board boat body bone book born bottle bottom box boy brave bread break bright brown bus by cake call
camp can cap car card care cat chair chart child children choose circle city clear clock close cloud
coat cold color colored colors column cook cool corner correct cost count country cover cow crop cross
crowd cup cut cyan cylinder dad dance dark data day deep desk diagram dinner do does dog door down draw
dream dress drink drive drum duck each earth east eat egg eight empty end entry equal even eye face fact
fall family farm fast fat feet field fight figure film final find fire first fish five flag flat floor
flower fly food foot for forest four fox free friend frog from fruit full game garden gate genre ghost
giant gift girl give glass go goat goes gold good grass gray great green ground group grow guitar hair
half hand happy has hat have he head heart heat help hen her here hero high highest hill his history
hold home hope horse hot hotel house how hurt ice icon image in inside into is island it item its jazz
job jump just keep key kid kind king kitchen kite know label lake lamp land large last law leaf leave
left leg less letter letters level life light like line lines lion list little live living long look
love low lowest luck made magic main make man many map mark market maximum meal mean meat median meet
men metal milk mind minimum minus money month moon more morning most mother mountain mouse move movie
much music mystery name near neck need nest net new next night nine no noise none north nose not note
number numbers object objects ocean of old on one open option or orange other out over owl own page
paint pair paper parent park part party path pattern pen people pet phone phrase photo picture pie piece
pig pink plan plane plant plate play plot plus pond pool price print program purple quick quiet race
rain red remain rest rice rich ride right ring rise rises river road rock romance roof room root rope
rose rough row rubber run sad safe sail salt same sand sea season second see seed seen sell set seven
shape shapes ship shirt shoe shop short show shown shows side sign silver sing single sit six size skill
skin sky sleep small smooth snow soft some song soup south space sphere spoon sport spot square stand
standing star start stay stone stop store story street strong student subtract sugar sum summer sun
sunny swim table tail take talk tall team ten tent test than that the them then there these they thing
this three time title to together top toy train travel tree trend triangle truck true turn two type
under up use used using usually value values vehicle very village violin wait walk wall war warm was
watch water wave way wear weather week west wet what wheel when where which while white who wide wild
wind window winter with without wolf woman wood word words work world write written year yellow yes
young zero zoo adventure airplane bicycle boats cars buses trucks bikes planes birds cats dogs cubes
spheres cylinders circles squares triangles stars hearts cooking science fiction poetry health guide
letter biggest smallest largest greater smaller fewer decreasing increasing constant decrease increase
linear scatter horizontal vertical pies histogram sits runs stands sleeping running playing sitting
flying swimming driving walking riding near behind beside front grassy sandy snowy beach sea anna ben
clara dan emma finn grace hugo iris jack kate leo mary nina omar paul rosa sam tina tom king smith lee
brown bell moss hale reed stone wood cole dean ford gray hill hunt lane park west ann joe kim eva max
ida sue bob amy roy guy jim liz ron meg storm dust iron nature sports brick cloth clay wooden rubber
yard sofa nest head jet fig pea egg tea jam net fan cap pin mud fog sun ant bat owl rat dollars dollar
price costs cost buys buy child spent together dearer peaks dips increases decreases increase measured
quantity axis plot plots heat trend series presented presents data answer answers directly given choices
option's options bounding coordinates region described describes provide generate brief caption
happening photo scene visible usually belong purpose likely material mostly shown picture depicted
rendition printed author genre kind type objects object remain exist left subtract add all total greater
less than maximum minimum highest lowest value color tallest largest label written below bar bars chart
vehicle vehicles number icons icon count called look image question using single word phrase looks
smells waits watches eats plays stands sits beside person human sphere cube cylinder spheres cubes
cylinders persons hats keys fish cups lamps clocks chairs houses trees flowers balls apples moons rings
arrows diamonds crosses umbrellas mushrooms heights units unit measure tenths course dots cloud slice
slices widest thinnest longest shortest capital capitals sheet topmost rightmost leftmost without
altogether widest wider thinner longer shorter stuff use place book closely our option's today someone
sails rides their along through upon fresh carries holds happens going such doing wrote tell be taken me
been artist contain gone still present state behave higher becomes authors removes larger found curve
fits shelf library reach once joined prices save if whom as writer should touch feel reason somebody pay
form difference we expect build consist reaches did chosen named your you can's would could will were
had has who whose other each both either every same different first second third last next before after
again also because while during since until often always never perhaps maybe please give gives given
show tells told see sees saw seen know known think thought take takes took put puts leave leaves keep
keeps make makes made bring brings carry carrying hold holding watches watching smell smells smelling
chase chases chasing jump jumps jumping sniffs sniffing pushes pulls throws catches kicks picks buy sell
money sum totals amount amounts row rows line lines entry entries listed page cover title author's
book's kind's sort sorts type types name names named call called word's read reads reading written write
writes print prints correct wrong true false right answer list lists find finds finding match matches
choose select decide judge state states report reports describe ink sign signs upper lower frame corners
locate spell drawing drawn painted
""".split()  # noqa: SIM905
"""Common English words that get a token of their own."""

OPENINGS = (
    "What", "Which", "How", "Is", "Does", "Do", "There", "The", "Who", "Where", "Look", "Read",
    "Give", "Provide", "Describe", "Count", "Add", "Subtract", "If", "Generate", "Answer", "Name",
    "Options", "In", "On", "At", "Here", "Please", "One", "Down", "Along", "Through", "Would", "Put",
    "Take", "Leave", "Someone", "By", "To", "Of", "Up", "Going", "Whose", "For", "Toward", "From",
    "Out", "Suppose", "Under", "See", "Tell", "Find", "After", "Between", "Here's", "This", "That",
    "These", "When", "Late", "Deep", "Fresh", "Inside", "Near", "Today", "With", "Among", "Say",
    "State", "Pick", "Choose", "Now", "You",
)  # fmt: skip
"""Words that often open a sentence, and get a token without a space before them."""

TITLES = tuple(word for word in dict.fromkeys(WORDS) if word.isalpha() and 2 < len(word) < 7)
"""Words short enough to be drawn large."""
